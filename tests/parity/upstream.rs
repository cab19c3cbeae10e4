//! mamba-ssm's own references: the scan with softplus, bias, gate and last state, and the single state update.

use cascabel::plan::Act;

use crate::bounds;
use crate::golden::{Golden, beside, columns, error, from_slot, names, share_of_allclose, to_slot};
use crate::report::Report;
use crate::run::{Outcome, Setup, plan};
use crate::selective::Sizes;

/// Δ = softplus(delta_raw + bias) as a linear op of weight 1 on the diagonal; y·silu(z). Plain: neither.
fn setup(golden: &Golden, sizes: Sizes, full: bool) -> Setup {
    let Sizes { streams, d, n, complex, per_row } = sizes;
    let mut input = sizes.rows(golden, "delta_raw");
    let mut width = 2 * (d + per_row);
    let mut params = sizes.params(golden);
    if full {
        input = beside(&[(&input, width), (golden.get("z"), d)]);
        width += d;
        let identity = (0..d * d).map(|i| if i % (d + 1) == 0 { 1.0 } else { 0.0 }).collect();
        params.extend([("dt.weight", identity), ("dt.bias", golden.f32("delta_bias"))]);
    }
    let (plan, weights) = plan(
        width,
        |b, x| {
            let (u, mut step) = (b.columns(x, 0, d)?, b.columns(x, d, d)?);
            if full {
                step = b.linear("dt", step, d, true, Act::Softplus)?;
            }
            let (inward, outward) = (b.columns(x, 2 * d, per_row)?, b.columns(x, 2 * d + per_row, per_row)?);
            let y = b.selective_scan("", [u, step, inward, outward], n, complex)?;
            if !full {
                return Ok(y);
            }
            let z = b.columns(x, 2 * (d + per_row), d)?;
            b.gate("gate", y, z, Act::Silu)
        },
        &params,
    );
    let zero = vec![0.0; streams * d * per_row];
    let h0 = if golden.has("h0") { to_slot(golden.get("h0"), d, n, complex) } else { zero.clone() };
    let seeds = golden.has("gy").then(|| (golden.get("gy").to_vec(), vec![zero]));
    Setup { plan, weights, streams, input, slots: vec![h0], seeds }
}

/// The judged quantities, by the judge's names and in its layout.
fn quantities(golden: &Golden, sizes: Sizes, full: bool, outcome: &Outcome) -> Vec<(&'static str, Vec<f64>)> {
    let Sizes { d, n, complex, per_row, .. } = sizes;
    let mut all = vec![("y", outcome.y.clone()), ("h_T", from_slot(&outcome.slots[0], d, n, complex))];
    let Some(grads) = &outcome.grads else { return all };
    let width = 2 * (d + per_row) + if full { d } else { 0 };
    all.extend(
        ["grad_u", "grad_delta_raw", "grad_B", "grad_C"].into_iter().zip(sizes.grad_rows(grads, width)),
    );
    all.push(("grad_D", grads.params["D"].clone()));
    all.push(("grad_A", sizes.grad_a(golden, grads)));
    if full {
        all.push(("grad_z", columns(&grads.input, width, width - d, d)));
        all.push(("grad_delta_bias", grads.params["dt.bias"].clone()));
    }
    all
}

fn judge(title: &'static str, prefix: &str, count: usize, allowed: impl Fn(&str) -> (f64, f64)) {
    let (mut ours, mut theirs) = (Report::new(title), Report::new("as a share of upstream's own tolerance"));
    for name in names(prefix, count) {
        let golden = Golden::load(&name);
        let (sizes, full) = (Sizes::of(&golden), golden.has("z"));
        for outcome in setup(&golden, sizes, full).run() {
            for (quantity, got) in quantities(&golden, sizes, full, &outcome) {
                let want = golden.get(quantity);
                // The judge itself computed in f32: an f64 executor is no nearer to it than an f32 one.
                ours.check(&name, &outcome.executor, quantity, error(&got, want), bounds::OP);
                let share = share_of_allclose(&got, want, allowed(quantity));
                theirs.check(&name, &outcome.executor, quantity, share, 1.0);
            }
        }
    }
    ours.finish();
    theirs.finish();
}

#[test]
fn the_scan_follows_mamba_ssm() {
    judge("mamba-ssm selective_scan_ref", "mamba_ssm_scan", 5, bounds::mamba_ssm);
}

#[test]
fn one_step_follows_mamba_ssm() {
    judge("mamba-ssm selective_state_update_ref", "mamba_ssm_update", 4, |_| bounds::MAMBA_SSM_UPDATE);
}
