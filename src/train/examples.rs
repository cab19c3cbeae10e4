//! Examples of one length, side by side, as a graph takes them.

use candle_core::Device;

use super::mix::Example;
use super::pinned::PinnedVec;

/// Sounds `[count, len]`.
#[derive(Debug)]
pub struct Examples {
    count: usize,
    noisy: PinnedVec,
    clean: PinnedVec,
}

impl Examples {
    /// With room for so many of so many samples, for a device.
    pub fn with_capacity(count: usize, len: usize, device: &Device) -> Self {
        let room = || PinnedVec::with_capacity(count * len, device);
        Self { count: 0, noisy: room(), clean: room() }
    }

    /// Adds one, if there is room; all have one length.
    pub fn push(&mut self, example: &Example) {
        self.count += 1;
        self.noisy.extend(&example.noisy);
        self.clean.extend(&example.clean);
    }

    /// Makes room for others.
    pub fn clear(&mut self) {
        self.count = 0;
        self.noisy.clear();
        self.clean.clear();
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Samples of each.
    pub fn len(&self) -> usize {
        self.noisy.len() / self.count.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the model hears.
    pub fn noisy(&self) -> &[f32] {
        &self.noisy
    }

    /// What it should give.
    pub fn clean(&self) -> &[f32] {
        &self.clean
    }
}
