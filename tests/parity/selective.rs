//! The selective scan against its float64 definition: real and complex A, from h₀, with gradients of everything.

use cascabel::plan::Act;

use crate::bounds;
use crate::golden::{Golden, beside, columns, error, from_slot, names, to_slot};
use crate::report::Report;
use crate::run::{Grads, Outcome, Setup, plan};

/// See [`bounds::CANCELLING_SUM`].
const CANCELLING: &str = "selective_scan_real_b1_t4097_d1_n1";

/// The sizes of a golden's scan.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub streams: usize,
    pub d: usize,
    pub n: usize,
    pub complex: bool,
    /// Columns of B, and of C: N, or 2N for complex A.
    pub per_row: usize,
}

impl Sizes {
    pub fn of(golden: &Golden) -> Self {
        let (d, n, complex) = match *golden.shape("A") {
            [d, n] => (d, n, false),
            [d, n, 2] => (d, n, true),
            ref other => panic!("A {other:?}"),
        };
        Self { streams: golden.shape("u")[0], d, n, complex, per_row: if complex { 2 * n } else { n } }
    }

    /// u, Δ, B, C side by side, as the scan takes them.
    pub fn rows(self, golden: &Golden, delta: &str) -> Vec<f64> {
        let of = |name| golden.get(name);
        beside(&[(of("u"), self.d), (of(delta), self.d), (of("B"), self.per_row), (of("C"), self.per_row)])
    }

    /// The scan's parameters: A_log is log(−Re A).
    pub fn params(self, golden: &Golden) -> Vec<(&'static str, Vec<f32>)> {
        let part = |i: usize| golden.get("A").iter().skip(i).step_by(if self.complex { 2 } else { 1 });
        let a_log = match golden.has("A_log") {
            true => golden.f32("A_log"),
            false => part(0).map(|a| (-a).ln() as f32).collect(),
        };
        let mut params = vec![("A_log", a_log), ("D", golden.f32("D"))];
        if self.complex {
            params.push(("A_imag", part(1).map(|a| *a as f32).collect()));
        }
        params
    }

    /// ∂L/∂A in the judge's form: A_log's gradient is A times it.
    pub fn grad_a(self, golden: &Golden, grads: &Grads) -> Vec<f64> {
        let real = golden.get("A").iter().step_by(if self.complex { 2 } else { 1 });
        let real = real.zip(&grads.params["A_log"]).map(|(a, g)| g / a);
        match grads.params.get("A_imag") {
            Some(imag) => real.zip(imag).flat_map(|(re, im)| [re, *im]).collect(),
            None => real.collect(),
        }
    }

    /// The parts of the gradient of the input's columns.
    pub fn grad_rows(self, grads: &Grads, width: usize) -> [Vec<f64>; 4] {
        let part = |from, wide| columns(&grads.input, width, from, wide);
        let (d, per_row) = (self.d, self.per_row);
        [part(0, d), part(d, d), part(2 * d, per_row), part(2 * d + per_row, per_row)]
    }
}

fn setup(golden: &Golden, sizes: Sizes, delta: &str) -> Setup {
    let Sizes { streams, d, n, complex, per_row } = sizes;
    let width = 2 * (d + per_row);
    let (plan, weights) = plan(
        width,
        |b, x| {
            let (u, step) = (b.columns(x, 0, d)?, b.columns(x, d, d)?);
            let step = if delta == "delta" { step } else { b.activate("softplus", step, Act::Softplus)? };
            let (inward, outward) = (b.columns(x, 2 * d, per_row)?, b.columns(x, 2 * d + per_row, per_row)?);
            b.selective_scan("", [u, step, inward, outward], n, complex)
        },
        &sizes.params(golden),
    );
    let slot = |name| vec![to_slot(golden.get(name), d, n, complex)];
    let seeds = Some((golden.get("gy").to_vec(), slot("gh_T")));
    Setup { plan, weights, streams, input: sizes.rows(golden, delta), slots: slot("h0"), seeds }
}

fn judge(report: &mut Report, golden: &Golden, sizes: Sizes, delta: &str, outcome: &Outcome) {
    let back = |slot: &[f64]| from_slot(slot, sizes.d, sizes.n, sizes.complex);
    let exact = delta == "delta" && !sizes.complex;
    let mut check = |name: &str, got: &[f64]| {
        let cancels = golden.name == CANCELLING && name.starts_with("grad_A");
        let bound = match outcome.bound {
            bounds::OP if cancels => bounds::CANCELLING_SUM,
            bounds::OP_F64 if !exact => bounds::ROUNDED_F64,
            bound => bound,
        };
        report.check(&golden.name, &outcome.executor, name, error(got, golden.get(name)), bound);
    };
    check("y", &outcome.y);
    check("h_T", &back(&outcome.slots[0]));
    let Some(grads) = &outcome.grads else { return };
    let rows = sizes.grad_rows(grads, 2 * (sizes.d + sizes.per_row));
    for (name, got) in ["grad_u", &format!("grad_{delta}"), "grad_B", "grad_C"].into_iter().zip(rows) {
        check(name, &got);
    }
    check("grad_D", &grads.params["D"]);
    check("grad_A", &sizes.grad_a(golden, grads));
    check("grad_h0", &back(&grads.slots[0]));
    if !sizes.complex {
        check("grad_A_log", &grads.params["A_log"]);
    }
}

#[test]
fn the_selective_scan_follows_its_float64_definition() {
    for (kind, title, count) in [
        ("selective_scan_real", "selective scan, real A", 6),
        ("selective_scan_complex", "selective scan, complex A", 5),
    ] {
        let mut report = Report::new(title);
        for name in names(kind, count) {
            let golden = Golden::load(&name);
            let sizes = Sizes::of(&golden);
            for delta in ["delta", "delta_raw"].into_iter().filter(|delta| golden.has(delta)) {
                for outcome in setup(&golden, sizes, delta).run() {
                    judge(&mut report, &golden, sizes, delta, &outcome);
                }
            }
        }
        report.finish();
    }
}
