//! A session between devices: opened, started, tended, until whoever opened it drops it.
//!
//! ```text
//! Line::open(model, devices) ─► start ─► tend, some times a second: lost devices are sought again, what is spent is freed ─► drop
//! ```
//!
//! A device that is lost leaves its end of the session where it is, state and all; when it is back, the sound goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chain::{Ends, Latency, Voice};
use super::relay::{Relay, Shift, Worker, relay};
use super::session::{Remote, Session};
use super::slot::Slot;
use super::tap::Tapped;
use super::wire::{Capture, Gauges, Playback, wire};
use crate::audio::SampleRate;
use crate::audio::device::{Calls, Device, Format, Health, Running};
use crate::{Error, Result};

/// A device that has not called for so long is lost; at its beginning some take more than a second.
const SILENT: Duration = Duration::from_millis(2_500);
/// Between two tries to get a lost device back.
const RETRY: Duration = Duration::from_secs(1);
/// Of the time in which frames last that are kept in hand before playback asks: bursts of a device, or of a thread that was held up.
const BURST_S: f64 = 0.2;

/// How often a device is started that refuses.
const TRIES: usize = 3;

#[allow(clippy::disallowed_methods, reason = "off the audio threads")]
fn rest() {
    std::thread::sleep(Duration::from_millis(200));
}

/// How a line is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineOptions {
    /// The share of the model's sound, 0 to 1.
    pub mix: f32,
    /// Frames of the rate out that are kept in hand; a call's, between two devices, where it isn't said.
    pub margin: Option<usize>,
    /// Whether the model runs on a thread of its own, two calls ahead of the loudspeaker's, not in its call.
    pub worker: bool,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { mix: 1.0, margin: None, worker: false }
    }
}

/// What a line is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Frames go through.
    Running,
    /// A device's frames have come to their end.
    Done,
    /// A device is gone, and sought again: its name and what happened.
    Lost(String),
}

/// Devices, and the session between them.
pub struct Line {
    attached: Vec<Attached>,
    /// What steers the session.
    pub remote: Remote,
    /// What the wire tells.
    pub gauges: Gauges,
    ends: Ends,
    capture: Slot<Capture>,
    playback: Slot<Mouth>,
    worker: Option<Slot<Worker>>,
    shift: Option<Shift>,
    options: LineOptions,
    /// Frames that the worker is ahead.
    ahead: usize,
    /// When lost devices were sought last, all at once: they come back as they were, together.
    sought: Instant,
}

/// What the loudspeaker's call is answered by.
enum Mouth {
    Direct(Box<Playback>),
    Relay(Box<Relay>),
}

impl Mouth {
    fn fill(&mut self, frames: &mut [f32]) {
        match self {
            Self::Direct(playback) => playback.fill(frames),
            Self::Relay(relay) => relay.fill(frames),
        }
    }

    fn tap(&mut self) -> Tapped {
        match self {
            Self::Direct(playback) => playback.tap(),
            Self::Relay(relay) => relay.tap(),
        }
    }

    fn expect(&mut self, block: usize) {
        match self {
            Self::Direct(playback) => playback.expect(block),
            Self::Relay(relay) => relay.expect(block),
        }
    }

    fn away(&mut self, end: bool) {
        match self {
            Self::Direct(playback) => playback.away(end),
            Self::Relay(relay) => relay.away(end),
        }
    }
}

/// Calls that a worker is ahead.
const BLOCKS: usize = 2;

struct Attached {
    device: Box<dyn Device>,
    running: Option<Running>,
    health: Arc<Health>,
    /// Calls that were seen, and when they were seen to grow.
    calls: u64,
    since: Instant,
    /// Xruns of those before it was lost.
    xruns: u64,
    /// Why it could not be opened again.
    not_back: Option<String>,
}

/// The first device with an input, and the first with an output, by their places, and the formats of those.
fn formats<'d>(devices: impl Iterator<Item = &'d dyn Device> + Clone) -> Result<[(usize, Format); 2]> {
    let find = |what: &str, of: fn(&dyn Device) -> Option<Format>| {
        let found = devices.clone().enumerate().find_map(|(place, device)| Some((place, of(device)?)));
        found.ok_or_else(|| Error::input("devices", format!("one with {what}"), "none"))
    };
    Ok([find("an input", |device| device.input())?, find("an output", |device| device.output())?])
}

/// Frames of the rate out that are kept in hand: a call's, between two devices, where none are asked for.
fn margin(options: LineOptions, [(from, input), (to, output)]: [(usize, Format); 2]) -> usize {
    let frames = input.rate.frames_at(output.rate, input.block).max(output.block);
    options.margin.unwrap_or(if from == to { 0 } else { frames })
}

/// What two devices, or the two halves of one, make the session stand between.
fn ends(devices: &[Box<dyn Device>], options: LineOptions) -> Result<Ends> {
    let places = formats(devices.iter().map(AsRef::as_ref))?;
    let [(from, input), (to, output)] = places;
    let clock = |place: usize| devices.get(place).and_then(|device| device.clock());
    Ok(Ends {
        rate_in: input.rate,
        rate_out: output.rate,
        channels_in: input.channels,
        channels_out: output.channels,
        two_clocks: from != to && (clock(from).is_none() || clock(from) != clock(to)),
        margin: margin(options, places),
        burst: burst(input.rate, input.block.max(output.rate.frames_at(input.rate, output.block))),
    })
}

fn burst(rate: SampleRate, block: usize) -> usize {
    ((BURST_S * f64::from(rate.hz())) as usize).max(4 * block)
}

impl Line {
    /// Opens a session between devices, with a filter or with none, the first that has an input and the first that has an output. They stand still until
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] where no device has an input or none an output, for a voice that does not fit between them (its kind, its channels), and for
    /// a mix outside 0 to 1.
    pub fn open<'m>(
        voice: impl Into<Voice<'m>>,
        devices: Vec<Box<dyn Device>>,
        options: LineOptions,
    ) -> Result<Self> {
        let ends = ends(&devices, options)?;
        let (session, remote) = Session::open(voice, ends, options.mix)?;
        let (capture, mut playback, gauges) = wire(session);
        let [(from, _), (to, Format { block, .. })] = formats(devices.iter().map(AsRef::as_ref))?;
        if from == to {
            playback.keep_step();
        }
        let (mouth, worker) = if options.worker {
            let (worker, relay) = relay(playback, block, BLOCKS);
            (Mouth::Relay(Box::new(relay)), Some(Slot::new(worker)))
        } else {
            (Mouth::Direct(Box::new(playback)), None)
        };
        let attached = devices.into_iter().map(|device| Attached {
            device,
            running: None,
            health: Arc::default(),
            calls: 0,
            since: Instant::now(),
            xruns: 0,
            not_back: None,
        });
        Ok(Self {
            attached: attached.collect(),
            remote,
            gauges,
            ends,
            capture: Slot::new(capture),
            playback: Slot::new(mouth),
            ahead: if worker.is_some() { BLOCKS * block } else { 0 },
            worker,
            options,
            sought: Instant::now(),
            shift: None,
        })
    }

    /// The formats of the devices that are heard and that are played to.
    fn formats(&self) -> Option<[(usize, Format); 2]> {
        formats(self.attached.iter().map(|attached| attached.device.as_ref())).ok()
    }

    /// Frames of the devices' calls, as a rule: those that come and those that go.
    pub fn blocks(&self) -> [usize; 2] {
        self.formats().map_or([1; 2], |places| places.map(|(_, format)| format.block))
    }

    /// What the session stands between.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// A copy of what comes in, for whoever takes it within two seconds; before the start.
    pub fn tap_input(&self) -> Option<Tapped> {
        self.capture.with(Capture::tap)
    }

    /// A copy of what goes out.
    pub fn tap_output(&self) -> Option<Tapped> {
        self.playback.with(Mouth::tap)
    }

    /// The devices' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attached.iter().map(|attached| attached.device.name())
    }

    /// Times that the devices themselves had frames too late or too many.
    pub fn xruns(&self) -> u64 {
        let of = |attached: &Attached| attached.xruns + attached.health.xruns.load(Ordering::Relaxed);
        self.attached.iter().map(of).sum()
    }

    /// Seconds between a microphone and its calls, and between a call and the loudspeaker, as the devices say.
    pub fn device_seconds(&self) -> [f64; 2] {
        let [input, output] = [0, 1].map(|way| {
            let ahead =
                |attached: &Attached| attached.health.ahead.get(way).map_or(0, |n| n.load(Ordering::Relaxed));
            self.attached.iter().map(ahead).max().unwrap_or(0) as usize
        });
        [self.ends.rate_in.seconds(input), self.ends.rate_out.seconds(output)]
    }

    /// Starts the devices. Those that were started before one that refuses run on until the line is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for a device that is gone, busy, not permitted or has run before, after three tries of one that may come back;
    /// [`Error::Io`] where the system gives no thread.
    pub fn start(&mut self) -> Result<()> {
        if let Some(worker) = &self.worker {
            self.shift = Some(Shift::start(worker.clone())?);
        }
        let (capture, playback) = (self.capture.clone(), self.playback.clone());
        self.attached.iter_mut().try_for_each(|attached| attached.start(&capture, &playback))
    }

    /// How late what is said is, in parts, from a call to a call. What a worker is ahead counts as kept in hand, and between two clocks a call of the
    /// loudspeaker's, which is there beforehand. A device that came back with longer calls makes it that much more at most.
    pub fn latency(&self) -> Latency {
        let latency = self.remote.latency();
        let more = self.formats().map_or(0, |places| {
            let [_, (_, Format { block, .. })] = places;
            let waited = if self.ends.two_clocks { block } else { 0 };
            margin(self.options, places).saturating_sub(self.ends.margin) + waited
        });
        let more = more + self.ahead;
        Latency { margin: latency.margin + more, total: latency.total + more, ..latency }
    }

    /// Why a worker runs at no real-time priority, if it does not.
    pub fn hindered(&self) -> Option<&str> {
        self.shift.as_ref().and_then(|shift| shift.hindered.as_deref())
    }

    /// What is to be done off the audio threads; to be called some times a second.
    pub fn tend(&mut self) -> Doing {
        self.remote.tidy();
        let (capture, playback) = (self.capture.clone(), self.playback.clone());
        let most = self.worker.as_ref().map(|_| self.ahead);
        let due = self.sought.elapsed() > RETRY;
        let all: Vec<Doing> = self
            .attached
            .iter_mut()
            .map(|attached| attached.tend(&capture, &playback, due.then_some(most)))
            .collect();
        if due {
            self.sought = Instant::now();
        }
        let first = |wanted: fn(&Doing) -> bool| all.iter().find(|doing| wanted(doing)).cloned();
        first(|doing| *doing == Doing::Done)
            .or_else(|| first(|doing| matches!(doing, Doing::Lost(_))))
            .unwrap_or(Doing::Running)
    }

    /// Stops the devices and waits for them: files have their ends. Why one of them failed, if it did.
    pub fn stop(&mut self) -> Option<String> {
        // The loudspeaker, which comes last, first: it wants what the microphone hears.
        self.attached.iter_mut().rev().for_each(|attached| attached.running = None);
        let lost = self.attached.iter().filter(|attached| attached.health.lost().is_some());
        lost.for_each(|attached| attached.silence(&self.capture, &self.playback, true));
        self.shift = None;
        self.failed()
    }

    /// Why a device that cannot come back has ended.
    pub fn failed(&self) -> Option<String> {
        let lost = |attached: &Attached| attached.health.lost().filter(|_| !attached.device.comes_back());
        self.attached.iter().find_map(lost)
    }
}

impl Attached {
    /// Starts the device. One that others use or that is just coming up may refuse at first.
    fn start(&mut self, capture: &Slot<Capture>, playback: &Slot<Mouth>) -> Result<()> {
        let tries = if self.device.comes_back() { TRIES } else { 1 };
        for _ in 1..tries {
            if self.try_start(capture, playback).is_ok() {
                return Ok(());
            }
            rest();
        }
        self.try_start(capture, playback)
    }

    fn try_start(&mut self, capture: &Slot<Capture>, playback: &Slot<Mouth>) -> Result<()> {
        if let (true, Some(format)) = (self.device.comes_back(), self.device.input()) {
            capture.with(|capture| capture.expect(format.block));
        }
        if let (true, Some(format)) = (self.device.comes_back(), self.device.output()) {
            playback.with(|playback| playback.expect(format.block));
        }
        let (capture, playback) = (capture.clone(), playback.clone());
        let mut calls = Calls::default();
        if self.device.input().is_some() {
            calls.hear = Some(Box::new(move |frames| _ = capture.with(|capture| capture.push(frames))));
        }
        if self.device.output().is_some() {
            calls.fill = Some(Box::new(move |frames| {
                if playback.with(|playback| playback.fill(frames)).is_none() {
                    frames.fill(0.0);
                }
            }));
        }
        self.running = Some(self.device.start(calls, &self.health)?);
        (self.calls, self.since) = (0, Instant::now());
        Ok(())
    }

    /// Whoever records finds silence while the device is away.
    fn silence(&self, capture: &Slot<Capture>, playback: &Slot<Mouth>, end: bool) {
        if self.device.input().is_some() {
            capture.with(|capture| capture.away(end));
        }
        if self.device.output().is_some() {
            playback.with(|playback| playback.away(end));
        }
    }

    /// A worker is only so far ahead.
    fn fits(&self, most: Option<usize>) -> Result<()> {
        match (self.device.output(), most) {
            (Some(Format { block, .. }), Some(most)) if block > most => {
                let expected = format!("blocks of at most {most} frames, which is what the worker is ahead");
                Err(Error::input(self.device.name(), expected, block.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Looks after the device; a lost one is sought if it is time, and is not to ask for more frames at once than what is said then.
    fn tend(
        &mut self,
        capture: &Slot<Capture>,
        playback: &Slot<Mouth>,
        seek: Option<Option<usize>>,
    ) -> Doing {
        if self.health.is_done() {
            return Doing::Done;
        }
        let calls = self.health.calls.load(Ordering::Relaxed);
        if calls != self.calls {
            (self.calls, self.since) = (calls, Instant::now());
        } else if self.since.elapsed() > SILENT && self.running.is_some() && self.device.comes_back() {
            self.health.lose("it has not called for 2.5 s");
        }
        let Some(why) = self.health.lost() else { return Doing::Running };
        let name = self.device.name().to_string();
        let back = self.not_back.as_ref().map_or(String::new(), |error| format!("; not back: {error}"));
        let lost = Doing::Lost(format!("{name}: {why}{back}"));
        self.silence(capture, playback, false);
        if self.running.take().is_none()
            && let (true, Some(most)) = (self.device.comes_back(), seek)
        {
            let former = std::mem::take(&mut self.health);
            self.xruns += former.xruns.load(Ordering::Relaxed);
            let back = self.device.reopen().and_then(|()| self.fits(most));
            match back.and_then(|()| self.start(capture, playback)) {
                Ok(()) => {
                    self.not_back = None;
                    return Doing::Running;
                }
                Err(error) => {
                    self.not_back = Some(error.to_string());
                    self.health.lose(why);
                }
            }
        }
        lost
    }
}
