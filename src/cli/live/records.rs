//! Recordings beside the sound, on a thread of their own: what was heard, what was played. A full disk ends a recording, not the sound.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Args;
use crate::audio::{Recorder, SampleRate};
use crate::engine::live::{Line, Tapped};
use crate::{Error, Result};

/// Samples that are written at once.
const SAMPLES: usize = 1 << 14;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The recordings of a run. Dropped before they are finished, those keep their names that have a frame in them.
pub struct Records {
    lost: Vec<Arc<AtomicU64>>,
    troubles: Receiver<String>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Record>>>,
}

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
        let mut records: Vec<Record> = heard.into_iter().chain(said).collect();
        let lost = records.iter().map(|record| record.tapped.lost.clone()).collect();
        let (stop, (tell, troubles)) = (Arc::<AtomicBool>::default(), channel());
        let mut thread = None;
        if !records.is_empty() {
            let stopped = stop.clone();
            let named = std::thread::Builder::new().name("cascabel recorder".into());
            let spawned = named.spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    records.iter_mut().for_each(|record| record.write(&tell));
                    std::thread::sleep(LOOK);
                }
                records.iter_mut().for_each(|record| record.write(&tell));
                records
            });
            thread = Some(spawned.map_err(|e| Error::io("start", "a thread", e))?);
        }
        Ok(Self { lost, troubles, stop, thread })
    }

    /// What went wrong since this was last asked: an error ends its recording.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles.try_iter()
    }

    /// Frames that found no room, as a disk was too slow or full.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.load(Ordering::Relaxed)).sum()
    }

    /// Writes what is there and gives the files their names. What went wrong; one that fails does not keep the others from theirs.
    pub fn finish(&mut self) -> Vec<String> {
        let failed: Vec<String> = match self.end() {
            Some(Ok(records)) => records
                .into_iter()
                .filter_map(|record| record.finish().err())
                .map(|e| e.to_string())
                .collect(),
            Some(Err(_)) => vec!["the recorder's thread broke off; what it had written is kept".into()],
            None => Vec::new(),
        };
        self.troubles().chain(failed).collect()
    }

    /// Waits for the thread, if there is one.
    fn end(&mut self) -> Option<std::thread::Result<Vec<Record>>> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Record {
    fn write(&mut self, tell: &Sender<String>) {
        loop {
            let frames = self.tapped.take(&mut self.block);
            if frames.is_empty() {
                return;
            }
            let count = (frames.len() / self.tapped.channels()) as u64;
            let Some(recorder) = &mut self.recorder else {
                self.tapped.lost.fetch_add(count, Ordering::Relaxed);
                continue;
            };
            if let Err(error) = recorder.push(frames) {
                let path = self.path.display();
                self.tapped.lost.fetch_add(count, Ordering::Relaxed);
                let _ = tell.send(format!("{error}; {path} ends here, the sound goes on"));
                // What is in it is kept.
                let kept = self.recorder.take().map_or(Ok(()), |recorder| recorder.finish().map(|_| ()));
                if let Err(error) = kept {
                    let _ = tell.send(error.to_string());
                }
            }
        }
    }

    fn finish(self) -> Result<()> {
        self.recorder.map_or(Ok(()), |recorder| recorder.finish().map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::audio::device::{Clocked, Format, Nothing};
    use crate::engine::live::{Doing, LineOptions, Voice};

    #[derive(Parser)]
    struct Live {
        #[command(flatten)]
        args: Args,
    }

    fn line() -> Line {
        let format = Format { rate: SampleRate::new(8_000).unwrap(), channels: 1, block: 64 };
        let (source, sink) = (Box::new(Nothing::lasting(format, 8_000)), Box::new(Nothing::of(format)));
        let device = Clocked::new("null", Some(source), Some(sink), false);
        Line::open(Voice::Through, vec![Box::new(device)], LineOptions::default()).unwrap()
    }

    #[test]
    fn a_run_that_never_begins_leaves_an_older_recording_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("take.wav");
        std::fs::write(&path, "a take").unwrap();
        let args = Live::parse_from(["live", "--record", path.to_str().unwrap()]).args;
        drop(Records::begin(&args, &line()).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"a take");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut line = line();
        let mut records = Records::begin(&args, &line).unwrap();
        line.start().unwrap();
        while line.tend() == Doing::Running {
            std::thread::sleep(LOOK);
        }
        assert_eq!((records.finish(), line.stop()), (Vec::new(), None));
        assert_eq!(crate::audio::read_path(&path).unwrap().frames(), 8_000);
    }
}
