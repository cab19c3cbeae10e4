//! Frames from a source that has no clock, to a sink that has none, or from one to the other in step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Calls, Device, Fill, Format, Health, Hear, Running};
use crate::{Error, Result};

/// Frames for the asking.
pub trait Source: Send {
    /// What its frames are.
    fn format(&self) -> Format;
    /// Fills whole frames from the first on, and says how many; fewer than fit are its last.
    fn read(&mut self, frames: &mut [f32]) -> usize;
}

/// A place for frames.
pub trait Sink: Send {
    /// What its frames are.
    fn format(&self) -> Format;
    /// Takes whole frames.
    fn write(&mut self, frames: &[f32]) -> Result<()>;
    /// Nothing more comes.
    fn finish(&mut self) -> Result<()>;
}

/// How many frames are heard, and how many are then asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Frames of the source.
    pub hear: usize,
    /// Frames of the sink.
    pub fill: usize,
}

/// A source, a sink or both, and the thread that moves their frames. When the source has ended, silence is heard for a tail; then it is done
/// (and, by the clock and without a sink, goes on in silence until it is dropped).
pub struct Clocked {
    name: String,
    source: Option<Box<dyn Source>>,
    sink: Option<Box<dyn Sink>>,
    formats: [Option<Format>; 2],
    paced: bool,
    tail: Arc<AtomicUsize>,
    turns: Option<Box<dyn Iterator<Item = Turn> + Send>>,
}

impl Clocked {
    /// Paced by the clock, or as fast as it goes. With neither source nor sink it ends at once.
    pub fn new(
        name: &str,
        source: Option<Box<dyn Source>>,
        sink: Option<Box<dyn Sink>>,
        paced: bool,
    ) -> Self {
        let formats =
            [source.as_ref().map(|source| source.format()), sink.as_ref().map(|sink| sink.format())];
        Self { name: name.into(), source, sink, formats, paced, tail: Arc::default(), turns: None }
    }

    /// How many frames, of the sink if there is one, follow those which answer the source's: 0, until it is set.
    pub fn tail(&self) -> Arc<AtomicUsize> {
        self.tail.clone()
    }

    /// Moves frames in these turns, over and over or as long as they last, in place of a block of the source's and as much of the sink's.
    pub fn set_turns(&mut self, turns: impl Iterator<Item = Turn> + Send + 'static) {
        self.turns = Some(Box::new(turns));
    }
}

impl Device for Clocked {
    fn name(&self) -> &str {
        &self.name
    }

    fn input(&self) -> Option<Format> {
        self.formats[0]
    }

    fn output(&self) -> Option<Format> {
        self.formats[1]
    }

    fn start(&mut self, calls: Calls, health: &Arc<Health>) -> Result<Running> {
        let [input, output] = self.formats;
        let (source, sink) = (self.source.take(), self.sink.take());
        if (source.is_none(), sink.is_none()) != (input.is_none(), output.is_none()) {
            return Err(Error::Unavailable { what: self.name.clone(), why: "it has run before".into() });
        }
        let turns = self.turns.take().unwrap_or_else(|| Box::new(in_step(input, output)));
        let mover = Mover {
            source,
            sink,
            hear: calls.hear.unwrap_or_else(|| Box::new(|_| ())),
            fill: calls.fill.unwrap_or_else(|| Box::new(|frames| frames.fill(0.0))),
            formats: self.formats,
            tail: self.tail.clone(),
            paced: self.paced,
        };
        let (stop, told) = (Arc::new(AtomicBool::new(false)), health.clone());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("cascabel clock".into());
        let thread = thread.spawn(move || match mover.run(turns, &stopped, &told) {
            Ok(()) => told.done(),
            Err(error) => told.lose(error.to_string()),
        });
        let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
        Ok(Running(Box::new(Joined { stop, thread: Some(thread) })))
    }
}

/// A block of the one and as many frames of the other as last as long, to the frame.
fn in_step(input: Option<Format>, output: Option<Format>) -> impl Iterator<Item = Turn> {
    let hz = |format: Option<Format>| format.map(|format| u128::from(format.rate.hz()));
    let (from, to) = (hz(input).or(hz(output)).unwrap_or(1), hz(output).or(hz(input)).unwrap_or(1));
    let block = input.or(output).map_or(1, |format| format.block.max(1));
    (0u128..).map(move |n| {
        let until = |n: u128| n * block as u128 * to / from;
        Turn { hear: block, fill: (until(n + 1) - until(n)) as usize }
    })
}

struct Joined {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Mover {
    source: Option<Box<dyn Source>>,
    sink: Option<Box<dyn Sink>>,
    hear: Hear,
    fill: Fill,
    formats: [Option<Format>; 2],
    tail: Arc<AtomicUsize>,
    paced: bool,
}

impl Mover {
    fn run(
        mut self,
        turns: Box<dyn Iterator<Item = Turn> + Send>,
        stop: &AtomicBool,
        health: &Health,
    ) -> Result<()> {
        let moved = self.turn_by_turn(turns, stop, health);
        // What was written before something failed is kept.
        let finished = self.sink.as_mut().map_or(Ok(()), |sink| sink.finish());
        moved.and(finished)
    }

    fn turn_by_turn(
        &mut self,
        turns: Box<dyn Iterator<Item = Turn> + Send>,
        stop: &AtomicBool,
        health: &Health,
    ) -> Result<()> {
        let [input, output] = self.formats;
        let (mut heard, mut filled, mut last) = (0, 0, None);
        let (mut ins, mut outs) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        for turn in turns {
            let done = last == Some(0);
            if stop.load(Ordering::Relaxed) || (done && (self.sink.is_some() || !self.paced)) {
                return Ok(());
            }
            // Whoever plays it by another clock stops a little later: until then it is silence.
            if done {
                health.done();
            }
            if let (Some(source), Some(format)) = (&mut self.source, input) {
                ins.clear();
                ins.resize(turn.hear * format.channels, 0.0);
                let got = if last.is_none() { source.read(&mut ins) } else { 0 };
                if got < turn.hear && last.is_none() {
                    last = Some(self.rest(heard + got, heard, filled));
                }
                if !ins.is_empty() {
                    health.called();
                    (self.hear)(&ins);
                }
                heard += turn.hear;
            }
            // Frames of the sink that are left, or, without one, of the source.
            let passes = if output.is_some() { turn.fill } else { turn.hear };
            let wanted = last.map_or(passes, |left| left.min(passes));
            last = last.map(|left| left - wanted);
            if let (Some(sink), Some(format)) = (&mut self.sink, output) {
                outs.clear();
                outs.resize(wanted * format.channels, 0.0);
                if !outs.is_empty() {
                    health.called();
                    (self.fill)(&mut outs);
                    sink.write(&outs)?;
                }
                filled += wanted;
            }
            if self.paced {
                let due = [(input, heard), (output, filled)];
                let due = due.iter().filter_map(|(format, n)| format.map(|format| format.rate.seconds(*n)));
                let due = begun + Duration::from_secs_f64(due.fold(0.0, f64::max));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    /// The source has ended after so many frames: what is still to be moved, of the sink's frames or, without one, of the source's.
    fn rest(&self, frames: usize, heard: usize, filled: usize) -> usize {
        let ([input, output], tail) = (self.formats, self.tail.load(Ordering::Relaxed));
        match (input, output) {
            (Some(input), Some(output)) => {
                let (from, to) = (input.rate.hz() as usize, output.rate.hz() as usize);
                (frames * to).div_ceil(from) + tail - filled
            }
            _ => frames + tail - heard,
        }
    }
}

/// Silence, for ever or for a while; and a place where nothing is kept.
pub struct Nothing {
    format: Format,
    left: Option<usize>,
}

impl Nothing {
    /// For ever.
    pub fn of(format: Format) -> Self {
        Self { format, left: None }
    }

    /// So many frames.
    pub fn lasting(format: Format, frames: usize) -> Self {
        Self { format, left: Some(frames) }
    }
}

impl Source for Nothing {
    fn format(&self) -> Format {
        self.format
    }

    fn read(&mut self, frames: &mut [f32]) -> usize {
        let wanted = frames.len() / self.format.channels;
        let got = self.left.map_or(wanted, |left| left.min(wanted));
        self.left = self.left.map(|left| left - got);
        got
    }
}

impl Sink for Nothing {
    fn format(&self) -> Format {
        self.format
    }

    fn write(&mut self, _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::SampleRate;

    fn format(hz: u32, block: usize) -> Format {
        Format { rate: SampleRate::new(hz).unwrap(), channels: 2, block }
    }

    /// Frames heard and filled by a device that ends by itself.
    fn counted(mut device: Clocked) -> [usize; 2] {
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let health = Arc::new(Health::default());
        let [hear, fill] = counts.clone();
        let calls = Calls {
            hear: Some(Box::new(move |frames| _ = hear.fetch_add(frames.len() / 2, Ordering::Relaxed))),
            fill: Some(Box::new(move |frames| _ = fill.fetch_add(frames.len() / 2, Ordering::Relaxed))),
        };
        let running = device.start(calls, &health).unwrap();
        health.wait();
        drop(running);
        assert!(health.is_done());
        assert!(device.start(Calls::default(), &health).is_err(), "twice");
        counts.map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn what_goes_out_is_what_came_in_and_the_tail() {
        for (from, to, frames, block) in
            [(48_000, 48_000, 1_000, 64), (44_100, 48_000, 441, 7), (48_000, 8_000, 1, 64)]
        {
            let source = || Some(Box::new(Nothing::lasting(format(from, block), frames)) as Box<dyn Source>);
            let sink = Some(Box::new(Nothing::of(format(to, block))) as Box<dyn Sink>);
            let both = Clocked::new("both", source(), sink, false);
            both.tail().store(130, Ordering::Relaxed);
            let [heard, filled] = counted(both);
            let answers = (frames * to as usize).div_ceil(from as usize);
            assert_eq!(filled, answers + 130);
            assert!(heard >= frames && heard.is_multiple_of(block));
            let alone = Clocked::new("alone", source(), None, false);
            alone.tail().store(130, Ordering::Relaxed);
            assert!((frames + 130..frames + 130 + block).contains(&counted(alone)[0]));
        }
    }

    #[test]
    fn a_pace_is_kept_and_turns_are_as_given() {
        let begun = Instant::now();
        let source = Box::new(Nothing::lasting(format(48_000, 480), 4_800));
        let heard = counted(Clocked::new("paced", Some(source), None, true))[0];
        // It goes on in silence until it is dropped.
        assert!(heard >= 4_800, "{heard}");
        assert!(begun.elapsed() >= Duration::from_millis(90));
        let nothing = Box::new(Nothing::of(format(48_000, 64)));
        let sink = Box::new(Nothing::of(format(48_000, 64)));
        let mut device = Clocked::new("turns", Some(nothing), Some(sink), false);
        device.set_turns([Turn { hear: 3, fill: 0 }, Turn { hear: 0, fill: 9 }].into_iter());
        assert_eq!(counted(device), [3, 9]);
    }
}
