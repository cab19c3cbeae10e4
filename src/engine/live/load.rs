//! How much of the time that a block lasts is spent on making it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Hundredths of a block's time; what takes longer counts as the last.
const SHARES: usize = 301;

/// Counts blocks by the share of their time that they took.
#[derive(Debug)]
pub struct Load {
    blocks: [AtomicU32; SHARES],
    /// Millionths of blocks' times, all together.
    sum: AtomicU64,
    worst: AtomicU32,
}

/// What a [`Load`] has counted: shares of a block's time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Blocks.
    pub blocks: u64,
    /// Their mean.
    pub mean: f64,
    /// What 99 of 100 blocks took at most, to a hundredth.
    pub p99: f64,
    /// The most that one took.
    pub worst: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            blocks: std::array::from_fn(|_| AtomicU32::new(0)),
            sum: AtomicU64::new(0),
            worst: AtomicU32::new(0),
        }
    }
}

impl Load {
    pub(super) fn add(&self, share: f64) {
        let place = ((share * 100.0).ceil() as usize).min(SHARES - 1);
        if let Some(count) = self.blocks.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add((share * 1e6) as u64, Ordering::Relaxed);
        self.worst.fetch_max((share as f32).to_bits(), Ordering::Relaxed);
    }

    /// What was counted since this was last asked.
    pub fn take(&self) -> Shares {
        let counts = self.blocks.each_ref().map(|count| u64::from(count.swap(0, Ordering::Relaxed)));
        let blocks: u64 = counts.iter().sum();
        let sum = self.sum.swap(0, Ordering::Relaxed);
        let worst = f64::from(f32::from_bits(self.worst.swap(0, Ordering::Relaxed)));
        if blocks == 0 {
            return Shares::default();
        }
        let mut below = 0;
        let p99 = counts.iter().position(|count| {
            below += count;
            below * 100 >= blocks * 99
        });
        let p99 = (p99.unwrap_or(SHARES - 1) as f64 / 100.0).min(worst);
        Shares { blocks, mean: sum as f64 / 1e6 / blocks as f64, p99, worst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_blocks() {
        let load = Load::default();
        assert_eq!(load.take(), Shares::default());
        (1..=1_000).for_each(|n| load.add(f64::from(n) / 2_000.0));
        let shares = load.take();
        assert_eq!((shares.blocks, shares.p99, shares.worst), (1_000, 0.5, 0.5));
        assert!((shares.mean - 0.250_25).abs() < 1e-4);
        load.add(7.0);
        assert_eq!(load.take(), Shares { blocks: 1, mean: 7.0, p99: 3.0, worst: 7.0 });
    }
}
