//! Whether a model keeps up with its devices on this machine, measured before they start.

use std::time::Instant;

use crate::engine::bundled;
use crate::engine::live::{AnswerOptions, Ends, Session, Voice};
use crate::{Error, Result};

/// Seconds of sound that are run, in each of so many tries; the fastest counts, for others may use the machine too.
const SOUND_S: f64 = 0.1;
const TRIES: usize = 3;
/// What may be spent of the time there is.
const MOST: f64 = 0.9;

/// Refuses a model that does not fit between the ends or, where a clock runs, takes longer than its sound lasts.
pub fn check(voice: Voice<'_>, ends: Ends, name: &str, paced: bool) -> Result<()> {
    if !paced {
        return Session::open(voice, ends, 1.0).map(|_| ());
    }
    let share = share(voice, ends)?;
    if share < MOST {
        return Ok(());
    }
    let other = match name == bundled::DEFAULT {
        true => String::new(),
        false => format!(" (the bundled {} takes less: `cascabel bench` tells)", bundled::DEFAULT),
    };
    let expected = format!("a model that takes at most {MOST} of the time its sound lasts on this machine");
    Err(Error::input(
        format!("model {name}"),
        expected,
        format!("{share:.2}; fewer --channels, a faster machine or a smaller model would do{other}"),
    ))
}

/// The time that sound takes to make, as a share of what it lasts; of a generator, what it says.
fn share(voice: Voice<'_>, ends: Ends) -> Result<f64> {
    let voice = match voice {
        Voice::Answer(model, options) => {
            Voice::Answer(model, AnswerOptions { above_db: -60.0, pause_s: 0.02, longest_s: 60.0, ..options })
        }
        other => other,
    };
    let (mut session, _remote) = Session::open(voice, ends, 1.0)?;
    let frames = (SOUND_S * f64::from(ends.rate_in.hz())) as usize;
    let mut state = 1u32;
    let noise: Vec<f32> = (0..frames * ends.channels_in)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.1 * (state as f32 / u32::MAX as f32 - 0.5)
        })
        .collect();
    let mut said = vec![0.0; ends.rate_in.frames_at(ends.rate_out, frames) * ends.channels_out];
    // What is heard and what then is silent makes a generator answer.
    for sound in [&noise, &vec![0.0; 3 * noise.len()]] {
        session.hear(sound);
        let mut said = vec![
            0.0;
            ends.rate_in.frames_at(ends.rate_out, sound.len() / ends.channels_in)
                * ends.channels_out
        ];
        session.say(&mut said);
    }
    let noise = match voice {
        Voice::Answer(..) => vec![0.0; noise.len()],
        _ => noise,
    };
    let took = (0..TRIES).map(|_| {
        let begun = Instant::now();
        session.hear(&noise);
        session.say(&mut said);
        begun.elapsed().as_secs_f64()
    });
    Ok(took.fold(f64::MAX, f64::min) / SOUND_S)
}
