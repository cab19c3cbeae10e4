//! A copy of frames for whoever records or looks, without waiting for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::queue::ArrayQueue;

/// Times without frames that may wait to be taken.
const GAPS: usize = 16;

/// Frames of silence after so many frames of sound.
struct Silence {
    at: u64,
    frames: u64,
}

/// The end that is written to.
pub(super) struct Tap {
    ring: HeapProd<f32>,
    channels: usize,
    lost: Arc<AtomicU64>,
    pushed: u64,
    gaps: Arc<ArrayQueue<Silence>>,
}

/// The end that is read from.
pub struct Tapped {
    ring: HeapCons<f32>,
    channels: usize,
    /// Frames that found no room.
    pub lost: Arc<AtomicU64>,
    taken: u64,
    gaps: Arc<ArrayQueue<Silence>>,
    /// The next silence, as far as it is not taken.
    gap: Option<Silence>,
}

pub(super) fn tap(frames: usize, channels: usize) -> (Tap, Tapped) {
    let (producer, consumer) = HeapRb::new(frames.max(1) * channels).split();
    let (lost, gaps) = (Arc::<AtomicU64>::default(), Arc::new(ArrayQueue::new(GAPS)));
    let tap = Tap { ring: producer, channels, lost: lost.clone(), pushed: 0, gaps: gaps.clone() };
    (tap, Tapped { ring: consumer, channels, lost, taken: 0, gaps, gap: None })
}

impl Tap {
    /// Copies frames; those that find no room are counted.
    pub(super) fn push(&mut self, frames: &[f32]) {
        let room = self.ring.vacant_len() / self.channels * self.channels;
        let taken = frames.get(..room.min(frames.len())).unwrap_or_default();
        self.ring.push_slice(taken);
        self.pushed += (taken.len() / self.channels) as u64;
        self.lost.fetch_add(((frames.len() - taken.len()) / self.channels) as u64, Ordering::Relaxed);
    }

    /// Frames that never came, as there was no device: whoever takes finds silence in their place.
    pub(super) fn leave_gap(&mut self, frames: u64) {
        if self.gaps.push(Silence { at: self.pushed, frames }).is_err() {
            self.lost.fetch_add(frames, Ordering::Relaxed);
        }
    }
}

impl Tapped {
    /// Samples of a frame.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Takes what there is, as much as fits, channels side by side.
    pub fn take<'a>(&mut self, frames: &'a mut [f32]) -> &'a [f32] {
        // A silence is told of before the frames after it come, so it is looked for after those that are there.
        let there = (self.ring.occupied_len() / self.channels) as u64;
        self.gap = self.gap.take().or_else(|| self.gaps.pop());
        let fits = (frames.len() / self.channels) as u64;
        let sound =
            self.gap.as_ref().map_or(there, |gap| there.min(gap.at.saturating_sub(self.taken))).min(fits);
        let count = sound as usize * self.channels;
        let count = frames.get_mut(..count).map_or(0, |frames| self.ring.pop_slice(frames));
        self.taken += (count / self.channels) as u64;
        let silence = match &mut self.gap {
            Some(gap) if gap.at == self.taken => gap.frames.min(fits - sound),
            _ => 0,
        };
        let end = count + silence as usize * self.channels;
        frames.get_mut(count..end).unwrap_or_default().fill(0.0);
        self.gap = self
            .gap
            .take()
            .map(|gap| Silence { frames: gap.frames - silence, ..gap })
            .filter(|gap| gap.frames > 0);
        frames.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_silence_at_its_place() {
        let (mut own, mut given) = tap(8, 2);
        own.push(&[1.0; 6]);
        own.leave_gap(5);
        own.push(&[2.0; 4]);
        own.leave_gap(1);
        own.leave_gap(2);
        let mut all = Vec::new();
        let mut place = [9.0; 7];
        loop {
            let taken = given.take(&mut place);
            if taken.is_empty() {
                break;
            }
            assert!(taken.len() <= 6 && taken.len() % 2 == 0, "whole frames");
            all.extend_from_slice(taken);
        }
        let of = |sample: f32, frames: usize| vec![sample; 2 * frames];
        assert_eq!(all, [of(1.0, 3), of(0.0, 5), of(2.0, 2), of(0.0, 3)].concat());
        // More than are kept count as lost, as does what finds no room.
        (0..20).for_each(|_| own.leave_gap(3));
        own.push(&[1.0; 20]);
        assert_eq!(given.lost.load(Ordering::Relaxed), 4 * 3 + 2);
    }
}
