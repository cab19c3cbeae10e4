//! Whether a model keeps up with its devices on this machine, measured before they start.

use std::time::Instant;

use crate::engine::bundled;
use crate::engine::live::{AnswerOptions, Ends, Line, Mood, Session, Voice};
use crate::{Error, Result};

/// Seconds of sound that are run, in each of so many tries; the fastest counts, for others may use the machine too.
const SOUND_S: f64 = 0.1;
const TRIES: usize = 3;
/// Tries in all, where a generator's answer may end in the middle of one.
const MOST_TRIES: usize = 8;
/// What may be spent of the time there is.
const MOST: f64 = 0.9;

/// Refuses a model that does not fit between the ends or, where a clock runs, takes longer than its sound lasts, called as the devices call.
pub fn check(voice: Voice<'_>, line: &Line, name: &str, paced: bool) -> Result<()> {
    let ends = line.ends();
    if !paced {
        return Session::open(voice, ends, 1.0).map(|_| ());
    }
    let share = share(voice, ends, line.blocks())?;
    if share < MOST {
        return Ok(());
    }
    let help = match voice {
        Voice::Answer(..) => "a faster machine or a smaller model would do".into(),
        _ if name == bundled::DEFAULT => {
            "longer blocks, fewer --channels or a faster machine would do".into()
        }
        _ => format!(
            "longer blocks, fewer --channels, a faster machine or a smaller model would do (the bundled {} takes less: `cascabel bench` tells)",
            bundled::DEFAULT
        ),
    };
    let expected = format!("a model that takes at most {MOST} of the time its sound lasts on this machine");
    Err(Error::input(format!("model {name}"), expected, format!("{share:.2}; {help}")))
}

/// The time that sound takes to make, as a share of what it lasts; of a generator, what it says.
fn share(voice: Voice<'_>, ends: Ends, blocks: [usize; 2]) -> Result<f64> {
    let voice = match voice {
        Voice::Answer(model, options) => {
            Voice::Answer(model, AnswerOptions { above_db: -60.0, pause_s: 0.02, longest_s: 60.0, ..options })
        }
        other => other,
    };
    let (mut session, remote) = Session::open(voice, ends, 1.0)?;
    let answers = || remote.counts().mood() == Some(Mood::Answering);
    let frames = (SOUND_S * f64::from(ends.rate_in.hz())) as usize;
    let mut state = 1u32;
    let noise: Vec<f32> = (0..frames * ends.channels_in)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.1 * (state as f32 / u32::MAX as f32 - 0.5)
        })
        .collect();
    let silence = vec![0.0; noise.len()];
    let mut said = vec![0.0; ends.rate_in.frames_at(ends.rate_out, frames) * ends.channels_out];
    run(&mut session, &noise, &mut said, blocks);
    let (mut shares, mut spoken) = (Vec::new(), 0);
    while shares.len() < MOST_TRIES && spoken < TRIES {
        let speaks = matches!(voice, Voice::Answer(..));
        if speaks && !answers() {
            // What is heard and what then is silent makes a generator answer.
            run(&mut session, &noise, &mut said, blocks);
            run(&mut session, &silence, &mut said, blocks);
        }
        let begun = Instant::now();
        run(&mut session, if speaks { &silence } else { &noise }, &mut said, blocks);
        shares.push((begun.elapsed().as_secs_f64() / SOUND_S, !speaks || answers()));
        spoken += usize::from(!speaks || answers());
    }
    // Of a generator that falls silent at once, what it took most.
    let least = shares.iter().filter(|share| share.1).map(|share| share.0).reduce(f64::min);
    Ok(least.unwrap_or_else(|| shares.iter().map(|share| share.0).fold(0.0, f64::max)))
}

/// Sound through a session, in calls as the devices make them.
fn run(session: &mut Session, sound: &[f32], said: &mut [f32], blocks: [usize; 2]) {
    let ends = session.ends();
    let all = ends.rate_in.frames_at(ends.rate_out, sound.len() / ends.channels_in) * ends.channels_out;
    let hears = sound.chunks(blocks[0].max(1) * ends.channels_in);
    let all = all.min(said.len());
    let mut says = said[..all].chunks_mut(blocks[1].max(1) * ends.channels_out);
    let (calls, mut asked) = (hears.len(), 0);
    let asks = says.len();
    for (n, frames) in hears.enumerate() {
        session.hear(frames);
        while asked * calls < (n + 1) * asks {
            let Some(frames) = says.next() else { break };
            session.say(frames);
            asked += 1;
        }
    }
}
