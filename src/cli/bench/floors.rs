//! What this machine could do at most, and what share of it a model reaches.
//!
//! The floor of a call of T rows is the time that remains if nothing but the bound work is done:
//!
//! ```text
//! floor = max(T·FLOP / multiply-adds, bytes of weights / reads) + T·scan elements / scan rate
//! ```
//!
//! where reads are those of a buffer as large as the model's weights, FLOP those outside the scans, and all three those of the tiers that fall
//! due, in the mean: a tier of period P reads its weights in min(1, T/P) of the calls. Weights that lie in f16 count so in calls of any length,
//! though blocks of rows read them in f32. The share is floor over measured. It leaves out norms, activations, the convolution's history and
//! what each op costs to begin.

use serde::Serialize;

use crate::exec::cpu::{Isa, probes};
use crate::plan::{OpKind, Plan};

/// Rates of one core.
#[derive(Clone, Copy, Serialize)]
pub struct Floors {
    /// Multiply-adds in registers.
    pub gflops: f64,
    /// Reads of 0.5 MB: the second cache.
    pub read_half_mb_gb_per_s: f64,
    /// Reads of 8 MB: the third.
    pub read_8_mb_gb_per_s: f64,
    /// Reads of 256 MB: memory, where the third cache is smaller.
    pub read_256_mb_gb_per_s: f64,
    /// Scan elements: exponential, update, read-out.
    pub scan_g_per_s: f64,
}

impl Floors {
    /// Measured here and now, in about two seconds.
    pub fn measure() -> Self {
        let isa = Isa::best();
        Self {
            gflops: probes::multiply_adds(isa),
            read_half_mb_gb_per_s: probes::reads(isa, 1 << 19),
            read_8_mb_gb_per_s: probes::reads(isa, 8 << 20),
            read_256_mb_gb_per_s: probes::reads(isa, 256 << 20),
            scan_g_per_s: probes::scan_elements(isa),
        }
    }
}

/// The bound work of a model.
pub struct Work {
    /// Floating-point operations of an input row outside the scans.
    flop: f64,
    /// Scan elements of an input row.
    elements: f64,
    /// Bytes of packed weights, with the period at which they are read.
    bytes: Vec<(usize, f64)>,
    /// Reads of a buffer of that size, thousand millions of bytes a second.
    pub read_gb_per_s: f64,
}

impl Work {
    /// Of a plan whose packed weights take so many bytes.
    pub fn of(plan: &Plan, weight_bytes: usize) -> Self {
        let (mut flop, mut elements) = (0.0, 0.0);
        for (op, (_, period, cost)) in plan.ops.iter().zip(plan.cost().ops()) {
            match &op.kind {
                OpKind::Scan(scan) => elements += (scan.d * scan.n) as f64 / period as f64,
                _ => flop += cost.flop as f64 / period as f64,
            }
        }
        let read_gb_per_s = probes::reads(Isa::best(), weight_bytes);
        let packed = weight_bytes as f64 / plan.cost().weight_bytes().max(1) as f64;
        let bytes =
            plan.cost().ops().map(|(_, period, cost)| (period, packed * cost.weight_bytes as f64)).collect();
        Self { flop, elements, bytes, read_gb_per_s }
    }

    /// Microseconds a row, at least, in calls of `rows` rows.
    pub fn floor_us_per_row(&self, floors: &Floors, rows: usize) -> f64 {
        let arithmetic = self.flop / floors.gflops;
        let read: f64 = self.bytes.iter().map(|(period, bytes)| bytes / (*period).max(rows) as f64).sum();
        let reading = read / self.read_gb_per_s;
        (arithmetic.max(reading) + self.elements / floors.scan_g_per_s) / 1e3
    }
}
