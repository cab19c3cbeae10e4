//! Random numbers that are a function of (seed, index): the same example i in every run, resumed or not.
//!
//! The generator is ChaCha8 (Bernstein 2008; the 64-bit stream number is the index), which is the same on every
//! machine and in every version of its crate. The distributions are written here for the same reason.
//!
//! ```
//! use cascabel::train::random::Dice;
//! let (mut a, mut b) = (Dice::new(7, 42), Dice::new(7, 42));
//! assert_eq!(a.uniform(-1.0, 1.0), b.uniform(-1.0, 1.0));
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers.
pub struct Dice {
    rng: ChaCha8Rng,
    /// The second of two normal draws, which come in pairs.
    other: Option<f32>,
}

impl Dice {
    /// Stream `index` of `seed`.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self { rng, other: None }
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        (f64::from(low) + (f64::from(high) - f64::from(low)) * self.unit()) as f32
    }

    /// Uniform in the logarithm, in [low, high); both above 0.
    pub fn log_uniform(&mut self, low: f32, high: f32) -> f32 {
        self.uniform(low.ln(), high.ln()).exp()
    }

    /// One of 0 … n − 1; 0 if n is 0. (The bias of the product is below n·2⁻⁶⁴.)
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < f64::from(p)
    }

    /// Normal, mean 0 and deviation 1 (Box & Muller 1958), from 32 bits for the length and 32 for the angle: up to 6.8.
    pub fn normal(&mut self) -> f32 {
        if let Some(other) = self.other.take() {
            return other;
        }
        let bits = self.rng.next_u64();
        let part = |bits: u32| (bits as f32 + 0.5) / (1u64 << 32) as f32;
        let length = (-2.0 * libm::logf(part(bits as u32))).max(0.0).sqrt();
        let (sin, cos) = libm::sincosf(std::f32::consts::TAU * part((bits >> 32) as u32));
        self.other = Some(length * sin);
        length * cos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_differ() {
        let draw = |seed, index| Dice::new(seed, index).rng.next_u64();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn moments() {
        let mut dice = Dice::new(0, 0);
        let n = 40_000;
        let (mut sum, mut square, mut least, mut most) = (0f64, 0f64, [0usize; 5], 0f32);
        for _ in 0..n {
            let x = f64::from(dice.normal());
            sum += x;
            square += x * x;
            least[dice.below(5)] += 1;
            most = most.max(dice.log_uniform(0.1, 10.0));
        }
        assert!((sum / n as f64).abs() < 0.02 && (square / n as f64 - 1.0).abs() < 0.04);
        assert!(least.iter().all(|count| count.abs_diff(n / 5) < n / 50), "{least:?}");
        assert!(most < 10.0 && most > 9.0);
    }
}
