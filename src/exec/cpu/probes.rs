//! What this machine can do at most, measured by loops that do one thing on the lanes of an instruction set: multiply-adds in
//! registers, reading a buffer, updating scan states in the first cache.
//!
//! Each returns the best rate of several tries, since whatever disturbs a try slows it down.

use std::time::Instant;

use super::buffer::Aligned;
use super::isa::Isa;
use super::lanes::{Lanes, Math};

/// Tries of each probe.
const TRIES: usize = 24;
/// States a channel in the scan's probe, and vectors of channels that take turns.
const STATES: usize = 16;
const GROUPS: usize = 4;

/// One loop, run on the lanes of an instruction set.
pub trait Probe {
    /// Does its work once.
    ///
    /// # Safety
    ///
    /// The CPU has V's instruction set.
    unsafe fn run<V: Lanes>(&mut self);
}

/// Thousand millions of floating-point operations a second of one core, multiply-add by multiply-add in registers.
pub fn multiply_adds(isa: Isa) -> f64 {
    let mut probe = MultiplyAdds { rounds: 20_000, wide: isa.available() == Isa::Avx512 };
    let flop = (probe.rounds * probe.chains() * 16 * 2) as f64;
    flop / best(isa, &mut probe) / 1e9
}

/// Thousand millions of bytes a second that one core reads of a buffer of so many bytes, over and over in order.
pub fn reads(isa: Isa, bytes: usize) -> f64 {
    let lines = bytes.div_ceil(512).max(1);
    let passes = (16 << 20) / (lines * 512);
    let mut probe =
        Reads { buffer: Aligned::zeros(lines * 128), lines, passes: passes.clamp(1, 1 << 12), sum: 0.0 };
    let bytes = (probe.lines * 512 * probe.passes) as f64;
    bytes / best(isa, &mut probe) / 1e9
}

/// Thousand millions of scan elements a second of one core: a decay (one exponential), an update, a read-out, in the first cache.
pub fn scan_elements(isa: Isa) -> f64 {
    let len = GROUPS * STATES * 16;
    let mut probe =
        ScanElements { a: vec![-0.5; len], h: vec![0.1; len], y: vec![0.0; GROUPS * 16], rows: 300 };
    (probe.rows * len) as f64 / best(isa, &mut probe) / 1e9
}

/// Seconds of the fastest try; the first one, which warms up, does not count.
fn best(isa: Isa, probe: &mut impl Probe) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        isa.probe(probe);
        begun.elapsed().as_secs_f64()
    };
    once();
    let end = Instant::now();
    let mut fastest = f64::INFINITY;
    for i in 0..TRIES {
        // A large buffer takes long: three tries must do.
        if i >= 3 && end.elapsed().as_secs_f64() > 0.3 {
            break;
        }
        fastest = fastest.min(once());
    }
    fastest
}

struct MultiplyAdds {
    rounds: usize,
    wide: bool,
}

impl MultiplyAdds {
    /// Sums in flight: enough to hide the latency, few enough for the registers.
    fn chains(&self) -> usize {
        if self.wide { 12 } else { 5 }
    }

    #[inline(always)]
    unsafe fn chained<V: Lanes, const N: usize>(&self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (mut sums, half, one) = ([V::splat(0.5); N], V::splat(0.5), V::splat(1.0));
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = sum.fma(half, one);
                }
            }
            let total = sums.iter().fold(V::splat(0.0), |a, b| a.add(*b));
            std::hint::black_box(total.sum());
        }
    }
}

impl Probe for MultiplyAdds {
    #[inline(always)]
    unsafe fn run<V: Lanes>(&mut self) {
        // SAFETY: passed on.
        unsafe { if self.wide { self.chained::<V, 12>() } else { self.chained::<V, 5>() } }
    }
}

struct Reads {
    buffer: Aligned,
    /// Runs of eight vectors.
    lines: usize,
    passes: usize,
    sum: f32,
}

impl Probe for Reads {
    #[inline(always)]
    unsafe fn run<V: Lanes>(&mut self) {
        // SAFETY: the buffer holds `lines` times eight vectors.
        unsafe {
            let mut sums = [V::splat(0.0); 4];
            for _ in 0..self.passes {
                let mut p = std::hint::black_box(self.buffer.as_ptr());
                for _ in 0..self.lines {
                    let [a, b, c, d] = sums;
                    sums = [
                        a.add(V::load(p)).add(V::load(p.add(64))),
                        b.add(V::load(p.add(16))).add(V::load(p.add(80))),
                        c.add(V::load(p.add(32))).add(V::load(p.add(96))),
                        d.add(V::load(p.add(48))).add(V::load(p.add(112))),
                    ];
                    p = p.add(128);
                }
            }
            let [a, b, c, d] = sums;
            self.sum = std::hint::black_box(a.add(b).add(c.add(d)).sum());
        }
    }
}

struct ScanElements {
    a: Vec<f32>,
    h: Vec<f32>,
    y: Vec<f32>,
    rows: usize,
}

impl Probe for ScanElements {
    #[inline(always)]
    unsafe fn run<V: Lanes>(&mut self) {
        // SAFETY: a and h hold GROUPS × STATES vectors, y holds GROUPS.
        unsafe {
            let (dt, du, b, c) = (V::splat(0.01), V::splat(0.002), V::splat(0.3), V::splat(0.7));
            for _ in 0..self.rows {
                for group in 0..GROUPS {
                    let at = group * STATES * 16;
                    let (a, h) = (self.a.as_ptr().add(at), self.h.as_mut_ptr().add(at));
                    let mut y = V::splat(0.0);
                    for k in 0..STATES {
                        let decay = dt.mul(V::load(a.add(k * 16))).exp2();
                        let state = decay.fma(V::load(h.add(k * 16)), du.mul(b));
                        state.store(h.add(k * 16));
                        y = state.fma(c, y);
                    }
                    y.store(self.y.as_mut_ptr().add(group * 16));
                }
            }
            std::hint::black_box(self.y.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_runs_on_every_instruction_set() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let rates = [multiply_adds(isa), reads(isa, 100_000), reads(isa, 0), scan_elements(isa)];
            assert!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{isa:?}: {rates:?}");
        }
    }
}
