//! Two callbacks that devices call on threads of their own, and the ring between them.
//!
//! ```text
//! capture thread: Capture::push ─► ring ─► Playback::fill: hear all that came, follow its clock, say what is asked    playback thread
//! ```
//!
//! The ring allocates once and is wait-free; what does not fit is counted and lost. Before the first frames have come, silence is said, and not counted;
//! then the place of the first frame out is chosen so that a call finds just what it needs.
//!
//! By one clock that is the frames wanted. By two, calls of either fall anywhere between those of the other: then what was heard *by now* is reckoned, the
//! last call's frames and the time since, which moves evenly, and wanted is one call of each. A [`Follower`] keeps it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::chain::BLOCK;
use super::drift::{Course, Follower};
use super::load::Load;
use super::session::{Counts, Session};
use super::tap::{Tapped, Taps};

/// The most that a call hears, in times of what it is to say.
const CATCH_UP: f64 = 8.0;
/// How long the first calls are watched.
const SETTLE_S: f64 = 0.1;
/// A call of the capture that is later than this many seconds says nothing of its clock.
const STALE_S: f64 = 0.5;

/// What the capture callback tells of its clock.
#[derive(Default)]
struct Clock {
    /// Nanoseconds, after the wire was made, at which its frame 0 would have come.
    origin: AtomicI64,
    /// Frames of its last call.
    block: AtomicUsize,
    /// Whether playback has been called yet.
    asked: AtomicBool,
}

/// What the capture callback calls.
pub struct Capture {
    ring: HeapProd<f32>,
    channels: usize,
    rate: f64,
    epoch: Instant,
    pushed: u64,
    clock: Arc<Clock>,
    lost: Arc<AtomicU64>,
    taps: Taps,
}

/// What the playback callback calls.
pub struct Playback {
    ring: HeapCons<f32>,
    session: Session,
    begun: bool,
    /// Before that: frames that were asked for, until how many calls are watched, and the least beyond any of them.
    asked: usize,
    settle: f64,
    least: f64,
    block: Vec<f32>,
    channels: usize,
    /// Frames a second, of either end.
    rates: [f64; 2],
    epoch: Instant,
    heard: u64,
    clock: Arc<Clock>,
    /// Where there are two clocks; and the most frames of a call of either, of late.
    follower: Option<Follower>,
    most: [f64; 2],
    /// Frames that were missing or left out until now.
    trouble: u64,
    gauges: Gauges,
    taps: Taps,
}

/// What whoever looks may ask of a wire.
#[derive(Clone)]
pub struct Gauges {
    /// Frames that came while the ring was full, and are lost.
    pub lost: Arc<AtomicU64>,
    /// What playback's calls took.
    pub load: Arc<Load>,
    /// Frames of the ring that the last call found, and how many it holds.
    pub found: Arc<AtomicUsize>,
    /// How many frames the ring holds.
    pub room: usize,
    drift: Arc<AtomicU64>,
}

impl Gauges {
    /// What the capture's clock is faster by than the playback's, in parts in a million, as far as it is known.
    pub fn drift(&self) -> f64 {
        f64::from_bits(self.drift.load(Ordering::Relaxed))
    }
}

/// Puts a session behind a ring that holds a burst of its ends.
pub fn wire(session: Session) -> (Capture, Playback, Gauges) {
    let ends = session.ends();
    let room = ends.burst.max(BLOCK);
    let (producer, consumer) = HeapRb::new(room * ends.channels_in).split();
    let gauges = Gauges {
        lost: Arc::default(),
        load: Arc::default(),
        found: Arc::default(),
        room,
        drift: Arc::default(),
    };
    let (epoch, clock) = (Instant::now(), Arc::<Clock>::default());
    let rates = [ends.rate_in, ends.rate_out].map(|rate| f64::from(rate.hz()));
    let capture = Capture {
        ring: producer,
        channels: ends.channels_in,
        rate: rates[0],
        epoch,
        pushed: 0,
        clock: clock.clone(),
        lost: gauges.lost.clone(),
        taps: Taps::new(rates[0], ends.channels_in),
    };
    let playback = Playback {
        ring: consumer,
        session,
        begun: false,
        asked: 0,
        settle: if ends.margin > 0 { SETTLE_S * rates[1] } else { 0.0 },
        least: f64::MAX,
        block: vec![0.0; BLOCK * ends.channels_in],
        channels: ends.channels_out,
        rates,
        epoch,
        heard: 0,
        clock,
        follower: ends.two_clocks.then(|| Follower::new(ends.rate_out.hz())),
        most: [0.0; 2],
        trouble: 0,
        gauges: gauges.clone(),
        taps: Taps::new(rates[1], ends.channels_out),
    };
    (capture, playback, gauges)
}

impl Capture {
    /// Gives a copy of what comes to whoever takes it within two seconds. Allocates: before the device starts.
    pub fn tap(&mut self) -> Tapped {
        self.taps.tap()
    }

    /// The device is one with a clock of its own, and calls of so many frames; before it starts.
    pub(super) fn expect(&mut self, block: usize) {
        self.taps.expect(block);
    }

    /// The device is away, for good if this is the end; off the audio threads.
    pub(super) fn away(&mut self, end: bool) {
        self.taps.away(self.epoch.elapsed().as_secs_f64(), end);
    }

    /// Hands frames on, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn push(&mut self, frames: &[f32]) {
        self.push_at(frames, self.epoch.elapsed().as_secs_f64());
    }

    /// The same, so many seconds after the wire was made.
    pub(super) fn push_at(&mut self, frames: &[f32], now: f64) {
        let frames = frames.get(..frames.len() / self.channels * self.channels).unwrap_or_default();
        self.taps.push(frames, now - (frames.len() / self.channels) as f64 / self.rate);
        let room = self.ring.vacant_len() / self.channels * self.channels;
        let (taken, lost) = frames.split_at(room.min(frames.len()));
        self.ring.push_slice(taken);
        // Before anyone listens there is nothing to lose.
        if self.clock.asked.load(Ordering::Relaxed) {
            self.lost.fetch_add((lost.len() / self.channels) as u64, Ordering::Relaxed);
        }
        self.pushed += (taken.len() / self.channels) as u64;
        let origin = now - self.pushed as f64 / self.rate;
        self.clock.origin.store((origin * 1e9) as i64, Ordering::Relaxed);
        self.clock.block.store(frames.len() / self.channels, Ordering::Relaxed);
    }
}

impl Playback {
    /// Gives a copy of what is said to whoever takes it within two seconds. Allocates: before the device starts.
    pub fn tap(&mut self) -> Tapped {
        self.taps.tap()
    }

    /// Says that capture and playback are called in turn by one device, so that the first call needs no other to tell where its frames lie.
    pub fn keep_step(&mut self) {
        self.settle = 0.0;
    }

    /// Fills the frames that the device asks for, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn fill(&mut self, frames: &mut [f32]) {
        let begun = Instant::now();
        self.fill_at(frames, (begun - self.epoch).as_secs_f64());
        if self.begun {
            let lasts = (frames.len() / self.channels).max(1) as f64 / self.rates[1];
            self.gauges.load.add(begun.elapsed().as_secs_f64() / lasts);
        }
    }

    /// The same, so many seconds after the wire was made.
    pub(super) fn fill_at(&mut self, frames: &mut [f32], now: f64) {
        let wanted = frames.len() / self.channels;
        self.clock.asked.store(true, Ordering::Relaxed);
        self.hear(wanted);
        if !self.begun && self.heard > 0 {
            self.begin(wanted, now);
        }
        if self.begun {
            self.keep_time(wanted, now);
            self.session.say(frames);
        } else {
            frames.fill(0.0);
        }
        self.taps.push(frames, now);
    }

    /// The device is one with a clock of its own, and calls of so many frames; before it starts.
    pub(super) fn expect(&mut self, block: usize) {
        self.taps.expect(block);
    }

    /// The device is away, for good if this is the end; off the audio threads.
    pub(super) fn away(&mut self, end: bool) {
        self.taps.away(self.epoch.elapsed().as_secs_f64(), end);
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    pub(super) fn rate(&self) -> u32 {
        self.session.ends().rate_out.hz()
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        self.session.counts()
    }

    /// Leaves out frames for which it is too late.
    pub(super) fn leave_out(&mut self, frames: usize) {
        if self.begun {
            self.session.jump(frames as i64);
        }
    }

    /// Hears what comes until the ring is empty, but of a backlog no more than some times what is wanted: a call has an end, whatever comes
    /// meanwhile.
    fn hear(&mut self, wanted: usize) {
        let channels = self.session.ends().channels_in;
        let most = (CATCH_UP * wanted as f64 * self.rates[0] / self.rates[1]) as usize + BLOCK;
        let most = if self.begun { most } else { self.gauges.room };
        let mut left = most * channels;
        loop {
            let room = left.min(self.block.len());
            let count = self.ring.pop_slice(self.block.get_mut(..room).unwrap_or_default());
            if count == 0 {
                break;
            }
            self.session.hear(self.block.get(..count).unwrap_or_default());
            left -= count;
        }
        let found = most - left / channels;
        self.heard += found as u64;
        self.gauges.found.store(found, Ordering::Relaxed);
    }

    /// Chooses the place of the first frame out. By one clock, where calls of either come first now and then, from the worst of the first
    /// calls; without a margin at once, but not before there are as many as are wanted.
    fn begin(&mut self, wanted: usize, now: f64) {
        let excess = match self.follower {
            Some(_) => self.beyond(wanted, now),
            None => {
                let beyond = self.session.in_hand() - (self.asked + wanted) as f64;
                self.least = self.least.min(beyond);
                let asked = self.asked as f64;
                self.asked += wanted;
                // A frame is one, if a sum of fractions is it but for rounding.
                if self.settle == 0.0 && beyond < -1e-6 {
                    (self.asked, self.least) = (0, f64::MAX);
                    return;
                }
                if asked < self.settle {
                    return;
                }
                asked + self.least
            }
        };
        self.begun = true;
        self.session.shift((excess + 1e-6).floor() as i64);
    }

    /// Frames in that came since the last that were heard, as its clock says.
    fn since(&self, now: f64) -> f64 {
        let origin = self.clock.origin.load(Ordering::Relaxed) as f64 / 1e9;
        (now - origin) * self.rates[0] - self.heard as f64
    }

    /// Frames out that were heard by now, beyond a call of either end.
    fn beyond(&mut self, wanted: usize, now: f64) -> f64 {
        let frames = [self.clock.block.load(Ordering::Relaxed), wanted];
        for (most, frames) in self.most.iter_mut().zip(frames) {
            *most = (*most * 0.999).max(frames as f64);
        }
        let ratio = self.rates[1] / self.rates[0];
        self.session.in_hand() + (self.since(now) - self.most[0]) * ratio - self.most[1]
    }

    /// Follows the capture's clock, if it is another.
    fn keep_time(&mut self, wanted: usize, now: f64) {
        if self.follower.is_none() {
            return;
        }
        let (beyond, stale) = (self.beyond(wanted, now), self.since(now) > STALE_S * self.rates[0]);
        let Some(follower) = &mut self.follower else { return };
        let trouble = self.session.trouble();
        if stale || trouble != self.trouble {
            self.trouble = trouble;
            follower.forget();
            return;
        }
        match follower.see(beyond, wanted) {
            Some(Course::Jump(frames)) => {
                self.session.jump(frames);
                self.trouble = self.session.trouble();
            }
            Some(Course::Follow(parts)) => {
                self.session.follow(parts);
                self.gauges.drift.store(follower.drift().to_bits(), Ordering::Relaxed);
            }
            None => {}
        }
    }
}
