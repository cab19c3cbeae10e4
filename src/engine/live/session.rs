//! What runs on the real-time thread: chains, how much of each is heard, and what is said when something is missing.
//!
//! ```text
//! y = (1 − m)·dry + m·wet      m follows mix, or 0 under bypass, in a straight line of 20 ms
//! ```
//!
//! A chain of another model, or of the same from its beginning, comes through a queue, ready made. It listens beside the old one until it has
//! heard its own latency and 100 ms more, then fades in over 20 ms; the old one goes back through another queue, to be freed where that is allowed.
//!
//! When fewer frames are ready than asked for, the last 10 ms are said again backwards, fading out, and what follows fades in over 5 ms. What comes
//! too late is more than is needed from then on, and is left out: at once, if it is much, else within a second, once all of a watch of 0.4 s has shown it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::answer::Mood;
use super::chain::{BLOCK, Chain, Ends, Latency, Voice};
use super::exchange::{Exchange, Held};
use super::gap::Gap;
use super::queue::ArrayQueue;
use crate::{Error, Result};

/// Seconds in which mix and bypass move from one end to the other, and chains fade into each other.
const FADE_S: f64 = 0.02;
/// Seconds that a chain hears, beyond its latency, before it is heard.
const PRIME_S: f64 = 0.1;
/// Seconds over which the least that is in hand is watched, and those in hand, beyond a burst, at which that is not waited for.
const WATCH_S: f64 = 0.4;
const MUCH_S: f64 = 0.05;
/// What may be in hand at the least, in seconds.
const SLACK_S: f64 = 0.002;

const MOODS: [Mood; 3] = [Mood::Listening, Mood::Hearing, Mood::Answering];

enum Command {
    Mix(f32),
    Bypass(bool),
}

/// What goes from whoever steers to the session, and back.
struct Queues {
    commands: ArrayQueue<Command>,
    chains: Exchange<Chain>,
}

/// What a session counts, for whoever looks. All are since the beginning, but for the peaks, which begin anew when they are taken.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that came in.
    pub heard: AtomicU64,
    /// Frames that went out.
    pub said: AtomicU64,
    /// Calls for frames of which not all were ready.
    pub late: AtomicU64,
    /// Frames that were not ready.
    pub missing: AtomicU64,
    /// Frames that came too late and were left out.
    pub dropped: AtomicU64,
    /// Chains that were faded in: other models, and the same from its beginning.
    pub swapped: AtomicU64,
    /// 1 + a [`Mood`], or 0.
    mood: AtomicU32,
    peak_in: AtomicU32,
    peak_out: AtomicU32,
}

impl Counts {
    /// The greatest sizes of samples that came in and went out since this was last asked.
    pub fn take_peaks(&self) -> (f32, f32) {
        let take = |peak: &AtomicU32| f32::from_bits(peak.swap(0, Ordering::Relaxed));
        (take(&self.peak_in), take(&self.peak_out))
    }

    /// What the model is at, if it is one that answers.
    pub fn mood(&self) -> Option<Mood> {
        let place = self.mood.load(Ordering::Relaxed) as usize;
        place.checked_sub(1).and_then(|place| MOODS.get(place).copied())
    }

    fn feel(&self, mood: Option<Mood>) {
        let place = mood.and_then(|mood| MOODS.iter().position(|other| *other == mood));
        self.mood.store(place.map_or(0, |place| place as u32 + 1), Ordering::Relaxed);
    }

    /// A call of which so many frames were not ready.
    pub(super) fn missed(&self, frames: usize) {
        Self::add(&self.missing, frames);
        Self::add(&self.late, usize::from(frames > 0));
    }

    fn add(count: &AtomicU64, n: usize) {
        count.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn peak(place: &AtomicU32, samples: &[f32]) {
        // Sizes of numbers that are no NaN are in the order of their bits.
        let most = samples.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        place.fetch_max(most.to_bits(), Ordering::Relaxed);
    }
}

/// A filter between a stream of frames that come in and one of frames that are asked for. After `open`, [`hear`](Self::hear) and [`say`](Self::say) do not
/// allocate, lock, wait, free or panic.
pub struct Session {
    chain: Box<Chain>,
    /// The one to come, and the frames that it still listens.
    next: Option<(Box<Chain>, usize)>,
    /// The share of `next` in what is said.
    fade: f32,
    /// The one before, if it did not fit into the queue.
    held: Held<Chain>,
    mix: f32,
    bypass: bool,
    /// The share of the model's sound as it is now, and what it moves by in a frame.
    wet: f32,
    step: f32,
    gap: Gap,
    watch: Watch,
    /// What the clock of what comes in is faster by, in parts in a million.
    drift: f64,
    queues: Arc<Queues>,
    counts: Arc<Counts>,
    /// One channel of a block.
    buffers: [[f32; BLOCK]; 2],
    frame: Vec<f32>,
}

/// The hand that steers a session from elsewhere. Its calls may allocate.
pub struct Remote {
    ends: Ends,
    latency: Latency,
    queues: Arc<Queues>,
    counts: Arc<Counts>,
}

impl Remote {
    /// The share of the model's sound, 0 to 1.
    pub fn mix(&self, share: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::input("mix", "a share of 0 to 1", share.to_string()));
        }
        self.send(Command::Mix(share))
    }

    /// The sound as it comes, as late as the model's.
    pub fn bypass(&self, on: bool) -> Result<()> {
        self.send(Command::Bypass(on))
    }

    /// Goes over to another model, to the same from its beginning, or to none. The chain is made here.
    pub fn swap<'m>(&mut self, voice: impl Into<Voice<'m>>) -> Result<()> {
        let chain = Chain::open(voice.into(), self.ends)?;
        let latency = chain.latency();
        self.queues.chains.offer(Box::new(chain)).map_err(|_| unheard())?;
        self.latency = latency;
        Ok(())
    }

    /// Frees what the session is done with; to be called now and then.
    pub fn tidy(&self) {
        self.queues.chains.tidy();
    }

    /// What the session has counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How late the session's answers are, of the model that was last given.
    pub fn latency(&self) -> Latency {
        self.latency
    }

    fn send(&self, command: Command) -> Result<()> {
        self.tidy();
        self.queues.commands.push(command).map_err(|_| unheard())
    }
}

fn unheard() -> Error {
    Error::Unavailable {
        what: "the session".into(),
        why: "it has not taken what was asked before; is its device running?".into(),
    }
}

impl Session {
    /// Opens a session with a filter (a model alone is one), another voice or none, and what steers it.
    pub fn open<'m>(voice: impl Into<Voice<'m>>, ends: Ends, mix: f32) -> Result<(Self, Remote)> {
        let chain = Box::new(Chain::open(voice.into(), ends)?);
        let queues = Arc::new(Queues { commands: ArrayQueue::new(64), chains: Exchange::new(4) });
        let counts = Arc::<Counts>::default();
        let remote =
            Remote { ends, latency: chain.latency(), queues: queues.clone(), counts: counts.clone() };
        remote.mix(mix)?;
        let rate = ends.rate_out.hz();
        counts.feel(chain.mood());
        let session = Self {
            chain,
            next: None,
            fade: 0.0,
            held: Held::default(),
            mix,
            bypass: false,
            wet: mix,
            step: (1.0 / (FADE_S * f64::from(rate))) as f32,
            gap: Gap::new(rate, ends.channels_out),
            watch: Watch::new(ends),
            drift: 0.0,
            queues,
            counts,
            buffers: [[0.0; BLOCK]; 2],
            frame: vec![0.0; BLOCK * ends.channels_out],
        };
        Ok((session, remote))
    }

    /// Takes frames, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn hear(&mut self, frames: &[f32]) {
        let channels = self.chain.ends().channels_in;
        Counts::add(&self.counts.heard, frames.len() / channels);
        Counts::peak(&self.counts.peak_in, frames);
        for block in frames.chunks(BLOCK * channels) {
            self.chain.hear(block);
            if let Some((next, listens)) = &mut self.next {
                next.hear(block);
                *listens = listens.saturating_sub(block.len() / channels);
            }
        }
    }

    /// Fills the frames that are asked for.
    #[rtsan_standalone::nonblocking]
    pub fn say(&mut self, frames: &mut [f32]) {
        self.obey();
        let channels = self.chain.ends().channels_out;
        let (mut missing, count) = (0, frames.len() / channels);
        // What is no whole frame is silence.
        let (frames, rest) = frames.split_at_mut(count * channels);
        rest.fill(0.0);
        self.keep_pace(count);
        for block in frames.chunks_mut(BLOCK * channels) {
            let wanted = block.len() / channels;
            let ready = self.ready().min(wanted);
            missing += wanted - ready;
            let (known, unknown) = block.split_at_mut(ready * channels);
            self.speak(known);
            self.gap.join(known);
            self.gap.bridge(unknown);
        }
        Counts::add(&self.counts.said, count);
        self.counts.feel(self.chain.mood());
        self.counts.missed(missing);
        Counts::peak(&self.counts.peak_out, frames);
    }

    /// Makes the clock of what comes in so many parts in a million faster than it says.
    pub fn follow(&mut self, parts: f64) {
        self.drift = parts;
        self.chain.follow(parts);
        if let Some((next, _)) = &mut self.next {
            next.follow(parts);
        }
    }

    /// What it stands between.
    pub fn ends(&self) -> Ends {
        self.chain.ends()
    }

    /// What is counted.
    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Frames that were missing or left out until now.
    pub(super) fn trouble(&self) -> u64 {
        self.counts.missing.load(Ordering::Relaxed) + self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Frames out that were heard beyond the one that is asked for next.
    pub fn in_hand(&self) -> f64 {
        self.chain.in_hand()
    }

    fn obey(&mut self) {
        while let Some(command) = self.queues.commands.pop() {
            match command {
                Command::Mix(share) => self.mix = share,
                Command::Bypass(on) => self.bypass = on,
            }
        }
        if self.next.is_none()
            && let Some(chain) = self.queues.chains.take(&mut self.held)
        {
            self.begin(chain);
        }
    }

    /// A chain begins to listen where the present one is.
    fn begin(&mut self, mut chain: Box<Chain>) {
        let (ends, latency) = (chain.ends(), chain.latency().total as f64);
        // It has heard nothing yet of the frames that the present one has in hand.
        // Were it a part of a frame ahead, it would be that much less ready.
        chain.leave_out(-(self.chain.in_hand().ceil() as i64));
        chain.follow(self.drift);
        let listens = latency + PRIME_S * f64::from(ends.rate_out.hz());
        let listens = listens * f64::from(ends.rate_in.hz()) / f64::from(ends.rate_out.hz());
        self.next = Some((chain, listens as usize));
        self.fade = 0.0;
    }

    /// Leaves out what came too late.
    fn keep_pace(&mut self, wanted: usize) {
        let beyond = self.chain.in_hand() - wanted as f64;
        let excess = self.watch.excess(beyond, wanted);
        if excess > 0 {
            self.jump(excess as i64);
        }
    }

    /// Leaves out so many frames, which counts as dropped, or says so many again, which were missing then.
    pub(super) fn jump(&mut self, frames: i64) {
        self.shift(frames);
        self.gap.cut();
        let count = if frames > 0 { &self.counts.dropped } else { &self.counts.missing };
        Counts::add(count, frames.unsigned_abs() as usize);
    }

    /// Moves the next frame out by so many, before anything has been said; below 0, back.
    pub fn shift(&mut self, frames: i64) {
        self.chain.leave_out(frames);
        if let Some((next, _)) = &mut self.next {
            next.leave_out(frames);
        }
    }

    /// Frames that can be said: of both chains, while one fades into the other.
    fn ready(&self) -> usize {
        match &self.next {
            Some((next, 0)) => self.chain.ready().min(next.ready()),
            _ => self.chain.ready(),
        }
    }

    /// Frames that are ready, mixed and faded.
    fn speak(&mut self, frames: &mut [f32]) {
        let count = frames.len() / self.chain.ends().channels_out;
        let target = if self.bypass { 0.0 } else { self.mix };
        let mut mixer = Mixer { wet: self.wet, target, step: self.step, buffers: &mut self.buffers };
        let wet = mixer.mix(&mut self.chain, frames);
        match &mut self.next {
            Some((coming, 0)) => {
                let other = self.frame.get_mut(..frames.len()).unwrap_or_default();
                mixer.mix(coming, other);
                self.fade = faded(frames, other, self.fade, self.step, self.chain.ends().channels_out);
            }
            // Nobody hears it yet.
            Some((coming, _)) => coming.leave_out(count as i64),
            None => {}
        }
        self.wet = wet;
        if self.fade >= 1.0
            && let Some((coming, _)) = self.next.take()
        {
            let former = std::mem::replace(&mut self.chain, coming);
            self.queues.chains.give_back(&mut self.held, former);
            self.fade = 0.0;
            Counts::add(&self.counts.swapped, 1);
        }
    }
}

/// How dry and wet become one.
struct Mixer<'a> {
    wet: f32,
    target: f32,
    step: f32,
    buffers: &'a mut [[f32; BLOCK]; 2],
}

impl Mixer<'_> {
    /// The next frames of a chain, which are ready; and the share of wet at their end.
    fn mix(&mut self, chain: &mut Chain, frames: &mut [f32]) -> f32 {
        let (outputs, filtered) = (chain.ends().channels_out, chain.channels());
        let count = frames.len() / outputs;
        let [dry, wet] = &mut *self.buffers;
        let (Some(dry), Some(wet)) = (dry.get_mut(..count), wet.get_mut(..count)) else { return self.wet };
        let mut share = self.wet;
        for c in 0..filtered {
            chain.say(c, dry, wet);
            share = self.wet;
            let places = if filtered == outputs { c..c + 1 } else { 0..outputs };
            for (frame, (dry, wet)) in frames.chunks_mut(outputs).zip(dry.iter().zip(wet.iter())) {
                share += (self.target - share).clamp(-self.step, self.step);
                let y = if share >= 1.0 { *wet } else { (1.0 - share) * dry + share * wet };
                frame.get_mut(places.clone()).unwrap_or_default().fill(y);
            }
        }
        share
    }
}

/// Frames go over into others; the share of those at the end.
fn faded(frames: &mut [f32], others: &[f32], mut share: f32, step: f32, channels: usize) -> f32 {
    for (old, new) in frames.chunks_mut(channels).zip(others.chunks(channels)) {
        share = (share + step).min(1.0);
        old.iter_mut().zip(new).for_each(|(old, new)| *old += share * (new - *old));
    }
    share
}

/// Watches how much is in hand beyond what a call needs. Now and then it is nothing; if it never is, some of it came too late.
struct Watch {
    /// None where another clock is followed: what little is in hand then comes and goes with the phases of the two.
    window: Option<usize>,
    much: f64,
    slack: f64,
    /// Frames of the window that have passed, and the least of it.
    passed: usize,
    least: f64,
}

impl Watch {
    fn new(ends: Ends) -> Self {
        let frames = |seconds: f64| seconds * f64::from(ends.rate_out.hz());
        let much = frames(MUCH_S) + ends.rate_in.frames_at(ends.rate_out, ends.burst) as f64;
        let window = (!ends.two_clocks).then_some(frames(WATCH_S) as usize);
        Self { window, much, slack: frames(SLACK_S), passed: 0, least: f64::MAX }
    }

    /// Frames to leave out before a call for so many.
    fn excess(&mut self, beyond: f64, wanted: usize) -> usize {
        self.least = self.least.min(beyond);
        self.passed += wanted;
        if beyond < self.much && self.window.is_none_or(|window| self.passed < window) {
            return 0;
        }
        let least = if beyond < self.much { self.least } else { beyond };
        (self.passed, self.least) = (0, f64::MAX);
        if least > self.slack { least as usize } else { 0 }
    }
}
