//! Random numbers that depend on what they are for, not on when they are drawn.

/// A counter-based generator (SplitMix64): draw `i` of a stream depends on (seed, stream, i) alone.
#[derive(Clone, Copy)]
pub struct Draws {
    key: u64,
    count: u64,
}

impl Draws {
    /// Stream `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))), count: 0 }
    }

    /// Draw `i` of stream `stream` under `seed`, uniform in [0, 1).
    pub fn at(seed: u64, stream: u64, i: u64) -> f64 {
        Self { count: i, ..Self::new(seed, stream) }.uniform()
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.count = self.count.wrapping_add(1);
        (mix(self.key.wrapping_add(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 11) as f64
            / (1u64 << 53) as f64
    }

    /// A whole number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
