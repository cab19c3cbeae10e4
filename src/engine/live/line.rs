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
    /// Frames that the worker is ahead, and those of a call of another clock's.
    ahead: usize,
    waited: usize,
}

/// What the loudspeaker's call is answered by.
enum Mouth {
    Direct(Box<Playback>),
    Relay(Relay),
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

    fn leave_gap(&mut self, seconds: f64) {
        match self {
            Self::Direct(playback) => playback.leave_gap(seconds),
            Self::Relay(relay) => relay.leave_gap(seconds),
        }
    }
}

/// Calls that a worker is ahead.
const BLOCKS: usize = 2;

struct Attached {
    device: Box<dyn Device>,
    running: Option<Running>,
    health: Arc<Health>,
    /// Calls that were seen, and when they were seen to grow, or the device was last sought.
    calls: u64,
    since: Instant,
    /// From when on no frames came that a recording knows of.
    gone: Option<Instant>,
    /// Xruns of those before it was lost.
    xruns: u64,
    /// Why it could not be opened again.
    not_back: Option<String>,
}

/// What two devices, or the two halves of one, make the session stand between.
fn ends(devices: &[Box<dyn Device>], options: LineOptions) -> Result<Ends> {
    let find = |what: &str, of: fn(&dyn Device) -> Option<Format>| {
        let found = devices.iter().find_map(|device| Some((device, of(device.as_ref())?)));
        found.ok_or_else(|| Error::input("devices", format!("one with {what}"), "none"))
    };
    let (from, input) = find("an input", |device| device.input())?;
    let (to, output) = find("an output", |device| device.output())?;
    let two = !std::ptr::eq(from, to);
    let frames = input.rate.frames_at(output.rate, input.block);
    Ok(Ends {
        rate_in: input.rate,
        rate_out: output.rate,
        channels_in: input.channels,
        channels_out: output.channels,
        two_clocks: two && (from.clock().is_none() || from.clock() != to.clock()),
        margin: options.margin.unwrap_or(if two { frames.max(output.block) } else { 0 }),
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
        let (capture, playback, gauges) = wire(session);
        let heard = devices.iter().find_map(|device| device.input()).map_or(0, |format| format.block);
        let waited = if ends.two_clocks { ends.rate_in.frames_at(ends.rate_out, heard) } else { 0 };
        let block = devices.iter().find_map(|device| device.output()).map_or(1, |format| format.block);
        let (mouth, worker) = if options.worker {
            let (worker, relay) = relay(playback, block, BLOCKS);
            (Mouth::Relay(relay), Some(Slot::new(worker)))
        } else {
            (Mouth::Direct(Box::new(playback)), None)
        };
        let attached = devices.into_iter().map(|device| Attached {
            device,
            running: None,
            health: Arc::default(),
            calls: 0,
            since: Instant::now(),
            gone: None,
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
            waited,
            shift: None,
        })
    }

    /// Frames of the devices' calls, as a rule: those that come and those that go.
    pub fn blocks(&self) -> [usize; 2] {
        let find = |of: fn(&dyn Device) -> Option<Format>| {
            self.attached
                .iter()
                .find_map(|attached| of(attached.device.as_ref()))
                .map_or(1, |format| format.block)
        };
        [find(|device| device.input()), find(|device| device.output())]
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

    /// How late what is said is, in parts. What a worker is ahead counts as kept in hand, and between two clocks a call of the microphone's, which
    /// is waited for.
    pub fn latency(&self) -> Latency {
        let latency = self.remote.latency();
        let more = self.ahead + self.waited;
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
        let all: Vec<Doing> =
            self.attached.iter_mut().map(|attached| attached.tend(&capture, &playback)).collect();
        let first = |wanted: fn(&Doing) -> bool| all.iter().find(|doing| wanted(doing)).cloned();
        first(|doing| *doing == Doing::Done)
            .or_else(|| first(|doing| matches!(doing, Doing::Lost(_))))
            .unwrap_or(Doing::Running)
    }

    /// Stops the devices and waits for them: files have their ends. Why one of them failed, if it did.
    pub fn stop(&mut self) -> Option<String> {
        // The loudspeaker, which comes last, first: it wants what the microphone hears.
        self.attached.iter_mut().rev().for_each(|attached| attached.running = None);
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
        let (capture, playback) = (capture.clone(), playback.clone());
        // Before the first frame comes again. If none does, the next try tells of the rest.
        if let Some(gone) = &mut self.gone {
            let seconds = std::mem::replace(gone, Instant::now()).elapsed().as_secs_f64();
            if self.device.input().is_some() {
                capture.with(|capture| capture.leave_gap(seconds));
            }
            if self.device.output().is_some() {
                playback.with(|playback| playback.leave_gap(seconds));
            }
        }
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
        (self.calls, self.since, self.gone) = (0, Instant::now(), None);
        Ok(())
    }

    fn tend(&mut self, capture: &Slot<Capture>, playback: &Slot<Mouth>) -> Doing {
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
        if self.running.take().is_some() {
            self.gone = Some(self.since);
            self.since = Instant::now();
        } else if self.device.comes_back() && self.since.elapsed() > RETRY {
            self.since = Instant::now();
            let former = std::mem::take(&mut self.health);
            self.xruns += former.xruns.load(Ordering::Relaxed);
            match self.device.reopen().and_then(|()| self.start(capture, playback)) {
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
