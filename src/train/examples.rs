//! Examples of one length, side by side, as a graph takes them.

use super::mix::Example;

/// Sounds `[count, len]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    count: usize,
    noisy: Vec<f32>,
    clean: Vec<f32>,
}

impl Examples {
    /// With room for so many of so many samples.
    pub fn with_capacity(count: usize, len: usize) -> Self {
        Self { count: 0, noisy: Vec::with_capacity(count * len), clean: Vec::with_capacity(count * len) }
    }

    /// Adds one; all have one length.
    pub fn push(&mut self, example: &Example) {
        self.count += 1;
        self.noisy.extend_from_slice(&example.noisy);
        self.clean.extend_from_slice(&example.clean);
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
