//! The loop beside the sound: devices are tended, wishes passed on, and it is told how it goes.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::keys::{self, Key};
use super::plan::Plan;
use super::screen::Screen;
use super::status::{Reader, Status};
use crate::cli::exit::{Tally, complain};
use crate::cli::{print, stop};
use crate::engine::live::Doing;
use crate::{Error, Result};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
/// Keys from one end of the mix to the other.
const STEPS: f32 = 20.0;

/// Where wishes come from and news goes.
enum Face {
    Screen(Box<Screen>),
    Lines(Receiver<Key>),
}

pub fn run(mut plan: Plan) -> Result<Tally> {
    let stop = stop::flag()?;
    let mut reader = Reader::new(plan.voices[0].name.clone(), plan.mix, plan.voices.len() > 1);
    let on_screen = !plan.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let mut face = if on_screen {
        Face::Screen(Box::new(Screen::open(&plan.line)?))
    } else {
        Face::Lines(keys::lines())
    };
    let opening = reader.status(&plan.line, None, 0);
    face.tell(&opening)?;
    plan.line.start()?;
    if let Some(why) = plan.line.hindered() {
        face.complain(&format!(
            "no real-time priority for the worker ({why}); it may be late when others are busy"
        ));
    }
    let mut last = opening;
    let mut told = Instant::now();
    let failed = loop {
        let doing = plan.line.tend();
        plan.records.troubles().for_each(|trouble| face.complain(&trouble));
        if let Some(why) = plan.line.failed() {
            break Some(why);
        }
        let peaks = reader.look(&plan.line);
        if told.elapsed() >= SECOND {
            // A second that was spent on seeking a device is not told twice.
            told = if told.elapsed() < 2 * SECOND { told + SECOND } else { Instant::now() };
            last = reader.status(&plan.line, Some(&doing), plan.records.lost());
            face.tell(&last)?;
        }
        let timely = plan.seconds.is_none_or(|seconds| reader.seconds() < seconds);
        if doing == Doing::Done || !timely || stop.load(Ordering::Relaxed) {
            break None;
        }
        match face.key(&last, peaks, &reader)? {
            Some(Key::Quit) => break None,
            Some(key) => {
                if let Err(error) = grant(key, &mut plan, &mut reader) {
                    face.complain(&error.to_string());
                }
            }
            None => {}
        }
    };
    // What is in the devices' hands is heard to its end.
    let [_, ahead] = plan.line.device_seconds();
    std::thread::sleep(Duration::from_secs_f64(ahead.min(1.0)));
    // What devices miss of each other as they stop is nobody's loss.
    let mut end = reader.status(&plan.line, Some(&Doing::Done), plan.records.lost());
    // Files have their ends before anything is told that could fail.
    let failed = plan.line.stop().or(failed);
    let troubles = plan.records.finish();
    end.unrecorded = plan.records.lost();
    let told = face.close(&end);
    troubles.iter().for_each(|trouble| complain(trouble));
    told?;
    if let Some(why) = failed {
        return Err(Error::Unavailable { what: "live".into(), why });
    }
    // The sound went on without it, but a recording is not what was asked for.
    let failed = usize::from(end.unrecorded > 0 || !troubles.is_empty());
    Ok(Tally { done: 1, failed })
}

/// Does what was asked for.
fn grant(key: Key, plan: &mut Plan, reader: &mut Reader) -> Result<()> {
    let remote = &mut plan.line.remote;
    match key {
        Key::Bypass => {
            remote.bypass(!reader.bypass)?;
            reader.bypass = !reader.bypass;
        }
        Key::More | Key::Less => {
            let by = if key == Key::More { 1.0 / STEPS } else { -1.0 / STEPS };
            // In whole steps, so that neither end is missed by a rounding.
            let mix = (((reader.mix + by) * STEPS).round() / STEPS).clamp(0.0, 1.0);
            remote.mix(mix)?;
            reader.mix = mix;
        }
        Key::Reset => remote.swap(plan.voices[0].voice())?,
        Key::Swap => {
            let Some(other) = plan.voices.get(1) else {
                return Err(Error::input("s", "a model that --swap names", "none"));
            };
            remote.swap(other.voice())?;
            reader.model = other.name.clone();
            plan.voices.swap(0, 1);
        }
        Key::Quit => {}
    }
    Ok(())
}

impl Face {
    /// One line: on the screen, where standard error would be drawn over.
    fn complain(&mut self, trouble: &str) {
        match self {
            Self::Screen(screen) => screen.complain(trouble),
            Self::Lines(_) => complain(trouble),
        }
    }

    fn tell(&mut self, status: &Status) -> Result<()> {
        match self {
            Self::Screen(_) => Ok(()),
            Self::Lines(_) => {
                let json = serde_json::to_string(status)
                    .map_err(|e| Error::input("JSON", "text and finite numbers", e.to_string()))?;
                print::text(&format!("{json}\n"))
            }
        }
    }

    /// Waits for a wish until the next look.
    fn key(&mut self, status: &Status, peaks: [f32; 2], reader: &Reader) -> Result<Option<Key>> {
        match self {
            Self::Screen(screen) => screen.key(status, peaks, reader, LOOK),
            Self::Lines(keys) => match keys.recv_timeout(LOOK) {
                Ok(key) => Ok(Some(key)),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Ok(None),
                // Standard input has ended; what runs goes on.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(LOOK);
                    Ok(None)
                }
            },
        }
    }

    fn close(&mut self, end: &Status) -> Result<()> {
        self.tell(end)?;
        if let Self::Screen(screen) = self {
            screen.close();
            print::text(&format!("{}\n", end.summary()))?;
        }
        Ok(())
    }
}
