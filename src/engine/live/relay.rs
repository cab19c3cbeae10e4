//! A session on a thread of its own, some blocks ahead of the device.
//!
//! ```text
//! capture thread ─► ring ─► Worker::turn, on its thread: Playback::fill ─► ring of `ahead` frames ─► Relay::fill    playback thread
//! ```
//!
//! A model that is too large for a callback, or whose blocks take unevenly long, has the time of all of them for one. The device always gets its frames at
//! once: those that are not made yet are bridged ([`Gap`]), counted, and left out once they are made, so that nothing stays late. The two
//! threads share rings and counters, and neither waits for the other: the worker sleeps while the ring is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::gap::Gap;
use super::session::Counts;
use super::slot::Slot;
use super::tap::{Tapped, Taps};
use super::wire::Playback;
use crate::{Error, Result};

/// How long a worker sleeps that has nothing to do.
const NAP: Duration = Duration::from_micros(200);

/// What the playback callback calls, where a worker makes the frames.
pub struct Relay {
    ring: HeapCons<f32>,
    channels: usize,
    epoch: Instant,
    gap: Gap,
    /// Frames that were bridged, and that the worker has not left out yet.
    owed: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    taps: Taps,
}

/// What the worker's thread calls.
pub struct Worker {
    playback: Playback,
    ring: HeapProd<f32>,
    block: Vec<f32>,
    owed: Arc<AtomicUsize>,
}

/// Puts a worker between a wire's end and the device. It makes blocks of so many frames, `blocks` of them before they are asked for: what is heard is
/// so much later.
pub fn relay(playback: Playback, block: usize, blocks: usize) -> (Worker, Relay) {
    let (channels, rate, counts) = (playback.channels(), playback.rate(), playback.counts());
    let samples = block.max(1) * channels;
    let (mut producer, consumer) = HeapRb::new(blocks.max(1) * samples).split();
    // Full from the beginning, the worker makes a block for each that is taken.
    producer.push_iter(std::iter::repeat_n(0.0, blocks.max(1) * samples));
    let owed = Arc::<AtomicUsize>::default();
    let worker = Worker { playback, ring: producer, block: vec![0.0; samples], owed: owed.clone() };
    let gap = Gap::new(rate, channels);
    let (taps, epoch) = (Taps::new(f64::from(rate), channels), Instant::now());
    (worker, Relay { ring: consumer, channels, epoch, gap, owed, counts, taps })
}

impl Relay {
    /// Gives a copy of what is said to whoever takes it within two seconds. Allocates: before the device starts.
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

    /// Fills the frames that the device asks for, channels side by side.
    #[rtsan_standalone::nonblocking]
    pub fn fill(&mut self, frames: &mut [f32]) {
        let made = self.ring.pop_slice(frames);
        // The worker writes whole frames.
        let (known, unknown) = frames.split_at_mut(made);
        self.gap.join(known);
        self.gap.bridge(unknown);
        let missing = unknown.len() / self.channels;
        self.counts.missed(missing);
        self.owed.fetch_add(missing, Ordering::Relaxed);
        self.taps.push(frames, self.epoch.elapsed().as_secs_f64());
    }
}

impl Worker {
    /// Makes a block, if there is room for one; whether it did.
    #[rtsan_standalone::nonblocking]
    pub fn turn(&mut self) -> bool {
        if self.ring.vacant_len() < self.block.len() {
            return false;
        }
        let owed = self.owed.swap(0, Ordering::Relaxed);
        if owed > 0 {
            self.playback.leave_out(owed);
        }
        self.playback.fill(&mut self.block);
        self.ring.push_slice(&self.block);
        true
    }
}

/// The thread that a worker runs on; dropped, it ends.
pub(super) struct Shift {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Why it runs at no real-time priority.
    pub(super) hindered: Option<String>,
}

impl Shift {
    /// Starts the worker, at real-time priority where that is allowed.
    pub(super) fn start(worker: Slot<Worker>) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, (tell, told)) = (stop.clone(), std::sync::mpsc::sync_channel(1));
        let thread = std::thread::Builder::new().name("cascabel worker".into()).spawn(move || {
            let _ = tell.send(prefer().err());
            while !stopped.load(Ordering::Relaxed) {
                if !worker.with(Worker::turn).unwrap_or(false) {
                    rest();
                }
            }
        });
        let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
        let hindered = told.recv().unwrap_or(None);
        Ok(Self { stop, thread: Some(thread), hindered })
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[allow(clippy::disallowed_methods, reason = "between blocks, with nothing in hand")]
fn rest() {
    std::thread::sleep(NAP);
}

/// Before all threads that are not of real time, below the audio server's.
fn prefer() -> std::result::Result<(), String> {
    use thread_priority::ThreadPriority;
    #[cfg(unix)]
    {
        use thread_priority::unix::{
            RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let priority = ThreadPriority::Crossplatform(50u8.try_into()?);
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        set_thread_priority_and_policy(thread_native_id(), priority, policy).map_err(|e| e.to_string())
    }

    #[cfg(not(unix))]
    thread_priority::set_current_thread_priority(ThreadPriority::Max).map_err(|e| e.to_string())
}
