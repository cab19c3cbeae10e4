//! Recordings beside the sound: what was heard, what was played. A full disk ends a recording, not the sound.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::Args;
use crate::audio::{Recorder, SampleRate};
use crate::cli::exit::complain;
use crate::engine::live::{Line, Tapped};
use crate::{Error, Result};

/// Samples that are written at once.
const SAMPLES: usize = 1 << 14;

/// The recordings of a run.
#[derive(Default)]
pub struct Records(Vec<Record>);

struct Record {
    path: PathBuf,
    tapped: Tapped,
    recorder: Option<Recorder>,
    block: Vec<f32>,
}

impl Records {
    /// Begins the files that the arguments ask for.
    pub fn begin(args: &Args, line: &Line) -> Result<Self> {
        let ends = line.ends();
        let begin =
            |path: &Option<PathBuf>, tap: &dyn Fn() -> Option<Tapped>, rate: SampleRate| -> Result<_> {
                let Some(path) = path else { return Ok(None) };
                let tapped = tap()
                    .ok_or_else(|| Error::input("--record", "a line that stands still", "one that runs"))?;
                let recorder = Some(Recorder::begin(path, rate, tapped.channels(), args.depth.into())?);
                Ok(Some(Record { path: path.clone(), tapped, recorder, block: vec![0.0; SAMPLES] }))
            };
        let heard = begin(&args.record_input, &|| line.tap_input(), ends.rate_in)?;
        let said = begin(&args.record, &|| line.tap_output(), ends.rate_out)?;
        Ok(Self(heard.into_iter().chain(said).collect()))
    }

    /// Writes what came since. An error ends its recording; what is to be said of it.
    pub fn write(&mut self) -> Vec<String> {
        self.0.iter_mut().flat_map(Record::write).collect()
    }

    /// Frames that found no room, as a disk was too slow.
    pub fn lost(&self) -> u64 {
        self.0.iter().map(|record| record.tapped.lost.load(Ordering::Relaxed)).sum()
    }

    /// Gives the files their names.
    pub fn finish(mut self) -> Result<()> {
        let troubles = self.write();
        troubles.iter().for_each(|trouble| complain(trouble));
        // One that fails does not keep the others from their names.
        let finish =
            |record: Record| record.recorder.map_or(Ok(()), |recorder| recorder.finish().map(|_| ()));
        let finished: Vec<Result<()>> = self.0.into_iter().map(finish).collect();
        finished.into_iter().collect()
    }
}

impl Record {
    fn write(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        loop {
            let frames = self.tapped.take(&mut self.block);
            if frames.is_empty() {
                return troubles;
            }
            let Some(recorder) = &mut self.recorder else { continue };
            if let Err(error) = recorder.push(frames) {
                let path = self.path.display();
                troubles.push(format!("{error}; {path} ends here, the sound goes on"));
                // What is in it is kept.
                if let Err(error) =
                    self.recorder.take().map_or(Ok(()), |recorder| recorder.finish().map(|_| ()))
                {
                    troubles.push(error.to_string());
                }
            }
        }
    }
}
