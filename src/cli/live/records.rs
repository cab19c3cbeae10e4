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

/// The recordings of a run. Dropped, they end as they are.
pub struct Records {
    lost: Vec<Arc<AtomicU64>>,
    troubles: Receiver<String>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
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
                // One that fails does not keep the others from their names.
                let finished: Vec<Result<()>> = records.into_iter().map(Record::finish).collect();
                finished.into_iter().collect()
            });
            thread = Some(spawned.map_err(|e| Error::io("start", "a thread", e))?);
        }
        Ok(Self { lost, troubles, stop, thread })
    }

    /// What went wrong since this was last asked: an error ends its recording.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles.try_iter()
    }

    /// Frames that found no room, as a disk was too slow.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.load(Ordering::Relaxed)).sum()
    }

    /// Writes what is there and gives the files their names.
    pub fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = || Error::Unavailable { what: "the recorder".into(), why: "its thread has ended".into() };
        thread.join().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Record {
    fn write(&mut self, tell: &Sender<String>) {
        loop {
            let frames = self.tapped.take(&mut self.block);
            if frames.is_empty() {
                return;
            }
            let Some(recorder) = &mut self.recorder else { continue };
            if let Err(error) = recorder.push(frames) {
                let path = self.path.display();
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
