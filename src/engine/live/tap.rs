//! A copy of frames for whoever records or looks, without waiting for them.
//!
//! Where a device is away, no frames come: the time that passes is told as silence, in its place, so that what is recorded lasts as long as it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::queue::ArrayQueue;

/// Seconds of frames that a tap holds.
const ROOM_S: f64 = 2.0;
/// Silences that may wait to be taken, and the seconds of each while it goes on.
const SILENCES: usize = 16;
const SILENCE_S: f64 = 0.5;
/// The least of the seconds that a device with a clock may be silent: none keeps so many in hand.
const STALL_S: f64 = 1.0;

/// Frames of silence after so many frames of sound.
struct Silence {
    at: u64,
    frames: u64,
}

/// The end of a copy that is written to.
struct Tap {
    ring: HeapProd<f32>,
    channels: usize,
    lost: Arc<AtomicU64>,
    pushed: u64,
    silences: Arc<ArrayQueue<Silence>>,
}

/// The end of a copy that is read from.
pub struct Tapped {
    ring: HeapCons<f32>,
    channels: usize,
    /// Frames that found no room.
    pub lost: Arc<AtomicU64>,
    taken: u64,
    silences: Arc<ArrayQueue<Silence>>,
    /// The next silence, as far as it is not taken.
    silence: Option<Silence>,
}

/// The copies of one end of a session.
pub(super) struct Taps {
    taps: Vec<Tap>,
    rate: f64,
    channels: usize,
    /// The time, in seconds, until which frames or silence were told, and whether the device is away.
    until: f64,
    away: bool,
    /// Seconds without frames that are silence though the device was not found to be away.
    patience: f64,
}

impl Taps {
    pub(super) fn new(rate: f64, channels: usize) -> Self {
        Self { taps: Vec::new(), rate, channels, until: 0.0, away: false, patience: f64::INFINITY }
    }

    /// Takes a device with calls of so many frames for stalled, and not for late, when nothing has come for a second, or for two such calls.
    pub(super) fn expect(&mut self, block: usize) {
        self.patience = (2.0 * block as f64 / self.rate).max(STALL_S);
    }

    /// Another copy, for whoever takes it within two seconds. Allocates: before the device starts.
    pub(super) fn tap(&mut self) -> Tapped {
        let frames = (ROOM_S * self.rate) as usize;
        let (producer, consumer) = HeapRb::new(frames.max(1) * self.channels).split();
        let (lost, silences) = (Arc::<AtomicU64>::default(), Arc::new(ArrayQueue::new(SILENCES)));
        let channels = self.channels;
        self.taps.push(Tap {
            ring: producer,
            channels,
            lost: lost.clone(),
            pushed: 0,
            silences: silences.clone(),
        });
        Tapped { ring: consumer, channels, lost, taken: 0, silences, silence: None }
    }

    /// Copies frames of which the first is of this time.
    pub(super) fn push(&mut self, frames: &[f32], from: f64) {
        let stalled = self.until > 0.0 && from - self.until > self.patience;
        if std::mem::take(&mut self.away) || stalled {
            self.pass(from);
        }
        self.until = from + (frames.len() / self.channels) as f64 / self.rate;
        self.taps.iter_mut().for_each(|tap| tap.push(frames));
    }

    /// The device is away, at this time: what has passed is silence, told in pieces while it lasts, and all of it at the end. For whoever looks after the device.
    pub(super) fn away(&mut self, now: f64, end: bool) {
        // Before the first frame nothing is recorded.
        self.away = self.until > 0.0;
        if self.away && (end || now - self.until > SILENCE_S) {
            self.pass(now);
        }
    }

    /// Silence until this time.
    fn pass(&mut self, now: f64) {
        let frames = ((now - self.until) * self.rate) as u64;
        if frames > 0 {
            self.until += frames as f64 / self.rate;
            self.taps.iter_mut().for_each(|tap| tap.pass(frames));
        }
    }
}

impl Tap {
    /// Copies frames; those that find no room are counted.
    fn push(&mut self, frames: &[f32]) {
        let room = self.ring.vacant_len() / self.channels * self.channels;
        let taken = frames.get(..room.min(frames.len())).unwrap_or_default();
        self.ring.push_slice(taken);
        self.pushed += (taken.len() / self.channels) as u64;
        self.lost.fetch_add(((frames.len() - taken.len()) / self.channels) as u64, Ordering::Relaxed);
    }

    fn pass(&mut self, frames: u64) {
        if self.silences.push(Silence { at: self.pushed, frames }).is_err() {
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
        self.silence = self.silence.take().or_else(|| self.silences.pop());
        let fits = (frames.len() / self.channels) as u64;
        let before = self.silence.as_ref().map_or(there, |next| next.at.saturating_sub(self.taken));
        let sound = there.min(before).min(fits);
        let count = sound as usize * self.channels;
        let count = frames.get_mut(..count).map_or(0, |frames| self.ring.pop_slice(frames));
        self.taken += sound;
        let quiet = match &self.silence {
            Some(next) if next.at == self.taken => next.frames.min(fits - sound),
            _ => 0,
        };
        let end = count + quiet as usize * self.channels;
        frames.get_mut(count..end).unwrap_or_default().fill(0.0);
        let left = |next: Silence| Silence { frames: next.frames - quiet, ..next };
        self.silence = self.silence.take().map(left).filter(|next| next.frames > 0);
        frames.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is there, some frames at a time.
    fn drained(given: &mut Tapped) -> Vec<f32> {
        let (mut all, mut place) = (Vec::new(), [9.0; 7]);
        loop {
            let taken = given.take(&mut place);
            if taken.is_empty() {
                return all;
            }
            assert!(taken.len() <= 6 && taken.len().is_multiple_of(2), "whole frames");
            all.extend_from_slice(taken);
        }
    }

    #[test]
    fn the_time_without_a_device_is_silence_at_its_place() {
        let mut taps = Taps::new(8.0, 2);
        taps.expect(1);
        let mut given = taps.tap();
        taps.away(0.1, false);
        taps.push(&[1.0; 6], 1.0);
        // Until 1.375; a second later it is back, told in two pieces, and a second after that it is away for good.
        taps.away(1.4, false);
        taps.away(2.0, false);
        taps.push(&[2.0; 4], 2.375);
        taps.away(3.0, false);
        taps.away(3.625, true);
        let all = drained(&mut given);
        let of = |sample: f32, frames: usize| vec![sample; 2 * frames];
        assert_eq!(all, [of(1.0, 3), of(0.0, 8), of(2.0, 2), of(0.0, 8)].concat());
        // So is a stall that nobody noticed, if it is no mere lateness.
        taps.push(&[3.0; 2], 4.125);
        taps.push(&[3.0; 2], 6.25);
        let all = drained(&mut given);
        assert_eq!(all, [of(0.0, 4), of(3.0, 1), of(0.0, 16), of(3.0, 1)].concat());
        // Where calls are long it is lateness.
        taps.expect(8);
        taps.push(&[4.0; 2], 8.25);
        assert_eq!(drained(&mut given), of(4.0, 1));
        // What finds no room counts as lost.
        (1..=20).for_each(|n| taps.away(8.375 + f64::from(n), false));
        taps.push(&[1.0; 40], 28.375);
        assert_eq!(given.lost.load(Ordering::Relaxed), 4 * 8 + 4);
    }
}
