//! Two callbacks that a device calls on threads of its own, and the ring between them.
//!
//! ```text
//! capture thread: Capture::push ─► ring ─► Playback::fill: hear all that came, say what is asked    playback thread
//! ```
//!
//! The ring allocates once and is wait-free; what does not fit is counted and lost. Before the first frame has come, silence is said, and not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::chain::BLOCK;
use super::load::Load;
use super::session::Session;

/// What the capture callback calls.
pub struct Capture {
    ring: HeapProd<f32>,
    channels: usize,
    lost: Arc<AtomicU64>,
}

/// What the playback callback calls.
pub struct Playback {
    ring: HeapCons<f32>,
    session: Session,
    begun: bool,
    block: Vec<f32>,
    channels: usize,
    /// Seconds that a frame lasts.
    frame: f64,
    load: Arc<Load>,
}

/// What whoever looks may ask of a wire.
pub struct Gauges {
    /// Frames that came while the ring was full, and are lost.
    pub lost: Arc<AtomicU64>,
    /// What playback's calls took.
    pub load: Arc<Load>,
}

/// Puts a session behind a ring that holds a burst of its ends. A drift is not followed here yet.
pub fn wire(session: Session) -> (Capture, Playback, Gauges) {
    let ends = session.ends();
    let (producer, consumer) = HeapRb::new(ends.burst.max(BLOCK) * ends.channels_in).split();
    let gauges = Gauges { lost: Arc::default(), load: Arc::default() };
    let capture = Capture { ring: producer, channels: ends.channels_in, lost: gauges.lost.clone() };
    let playback = Playback {
        ring: consumer,
        session,
        begun: false,
        block: vec![0.0; BLOCK * ends.channels_in],
        channels: ends.channels_out,
        frame: 1.0 / f64::from(ends.rate_out.hz()),
        load: gauges.load.clone(),
    };
    (capture, playback, gauges)
}

impl Capture {
    /// Hands frames on, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn push(&mut self, frames: &[f32]) {
        let frames = frames.get(..frames.len() / self.channels * self.channels).unwrap_or_default();
        let room = self.ring.vacant_len() / self.channels * self.channels;
        let (taken, lost) = frames.split_at(room.min(frames.len()));
        self.ring.push_slice(taken);
        self.lost.fetch_add((lost.len() / self.channels) as u64, Ordering::Relaxed);
    }
}

impl Playback {
    /// Fills the frames that the device asks for, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn fill(&mut self, frames: &mut [f32]) {
        let begun = Instant::now();
        loop {
            let count = self.ring.pop_slice(&mut self.block);
            if count == 0 {
                break;
            }
            self.begun = true;
            self.session.hear(self.block.get(..count).unwrap_or_default());
        }
        if !self.begun {
            frames.fill(0.0);
            return;
        }
        self.session.say(frames);
        let lasts = frames.len() as f64 / self.channels as f64 * self.frame;
        self.load.add(begun.elapsed().as_secs_f64() / lasts.max(self.frame));
    }
}
