//! A copy of frames for whoever records or looks, without waiting for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

/// The end that is written to.
pub(super) struct Tap {
    ring: HeapProd<f32>,
    channels: usize,
    lost: Arc<AtomicU64>,
}

/// The end that is read from.
pub struct Tapped {
    ring: HeapCons<f32>,
    channels: usize,
    /// Frames that found no room.
    pub lost: Arc<AtomicU64>,
}

pub(super) fn tap(frames: usize, channels: usize) -> (Tap, Tapped) {
    let (producer, consumer) = HeapRb::new(frames.max(1) * channels).split();
    let lost = Arc::<AtomicU64>::default();
    (Tap { ring: producer, channels, lost: lost.clone() }, Tapped { ring: consumer, channels, lost })
}

impl Tap {
    /// Copies frames; those that find no room are counted.
    pub(super) fn push(&mut self, frames: &[f32]) {
        let room = self.ring.vacant_len() / self.channels * self.channels;
        let taken = frames.get(..room.min(frames.len())).unwrap_or_default();
        self.ring.push_slice(taken);
        self.lost.fetch_add(((frames.len() - taken.len()) / self.channels) as u64, Ordering::Relaxed);
    }
}

impl Tapped {
    /// Samples of a frame.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Takes what there is, as much as fits, channels side by side.
    pub fn take<'a>(&mut self, frames: &'a mut [f32]) -> &'a [f32] {
        let fits = frames.len() / self.channels * self.channels;
        let count = frames.get_mut(..fits).map_or(0, |frames| self.ring.pop_slice(frames));
        frames.get(..count).unwrap_or_default()
    }
}
