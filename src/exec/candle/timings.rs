//! What each kind of op costs, forward and backward, at the sizes of training: run by name, with `--ignored --nocapture`.

use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};

use super::{CandleInput, CandleModel, train_error};
use crate::Result;
use crate::plan::{Act, NormKind, Plan, PlanBuilder, Rule, View, Weights};

/// A plan of one op.
fn plan(width: usize, op: impl Fn(&mut PlanBuilder, View) -> Result<View>) -> Result<Plan> {
    let mut b = PlanBuilder::new();
    let x = b.samples(width);
    let y = op(&mut b, x)?;
    b.build(y)
}

/// Shortest of several runs, µs: (forward, forward and backward).
fn time(plan: &Plan, streams: usize, rows: usize) -> Result<(f64, f64)> {
    let model = CandleModel::new(plan, &Weights::random(plan, 1), DType::F32)?;
    let crate::plan::Input::Samples(width) = plan.input else { return Ok((0.0, 0.0)) };
    let x = Tensor::randn(0f32, 0.3, (streams, rows, width), &Device::Cpu).map_err(train_error)?;
    let x = Var::from_tensor(&x).map_err(train_error)?;
    let state = model.zero_state(streams)?;
    let (mut forward, mut both) = (f64::MAX, f64::MAX);
    for _ in 0..15 {
        let start = Instant::now();
        let (y, _) = model.forward(&state, CandleInput::Samples(&x))?;
        forward = forward.min(start.elapsed().as_secs_f64() * 1e6);
        y.backward().map_err(train_error)?;
        both = both.min(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok((forward, both))
}

#[test]
#[ignore = "a measurement, not a check"]
fn timings() -> Result<()> {
    let (streams, rows) = (2, 500);
    println!("S {streams}, T {rows}, f32: µs forward, µs backward");
    for d in [64, 192] {
        let selective = |complex: bool, n: usize| {
            plan(2 * (d + if complex { 2 * n } else { n }), move |b, x| {
                let per_row = if complex { 2 * n } else { n };
                let (u, dt) = (b.columns(x, 0, d)?, b.columns(x, d, d)?);
                let (p, q) = (b.columns(x, 2 * d, per_row)?, b.columns(x, 2 * d + per_row, per_row)?);
                let dt = b.activate("dt", dt, Act::Softplus)?;
                b.selective_scan("s.", [u, dt, p, q], n, complex)
            })
        };
        let cases = [
            ("linear d→2d, bias", plan(d, |b, x| b.linear("l", x, 2 * d, true, Act::None))?),
            ("linear d→d, silu", plan(d, |b, x| b.linear("l", x, d, true, Act::Silu))?),
            ("linear d→d, glu", plan(d, |b, x| b.linear("l", x, d, true, Act::Glu))?),
            ("linear d→d, gelu", plan(d, |b, x| b.linear("l", x, d, true, Act::Gelu))?),
            ("activate softplus", plan(d, |b, x| b.activate("a", x, Act::Softplus))?),
            ("norm, layer", plan(d, |b, x| b.norm("n", x, NormKind::Layer, 1e-5))?),
            ("norm, rms", plan(d, |b, x| b.norm("n", x, NormKind::Rms, 1e-5))?),
            ("conv 4, silu", plan(d, |b, x| b.conv("c", x, 4, true, Act::Silu))?),
            (
                "gate of two views",
                plan(2 * d, |b, x| {
                    let (x, z) = (b.columns(x, 0, d)?, b.columns(x, d, d)?);
                    b.gate("g", x, z, Act::Silu)
                })?,
            ),
            ("add", plan(d, |b, x| b.add("a", x, x))?),
            (
                "frame 4, overlap 4",
                plan(d, |b, x| {
                    let x = b.frame("f", x, 4, 4)?;
                    b.overlap("o", x, 4, 1)
                })?,
            ),
            ("scan selective real 16", selective(false, 16)?),
            ("scan selective complex 8", selective(true, 8)?),
            ("scan invariant real 16", plan(d, |b, x| b.invariant_scan("s.", x, 16, false, Rule::Zoh))?),
            ("scan invariant complex 16", plan(d, |b, x| b.invariant_scan("s.", x, 16, true, Rule::Zoh))?),
        ];
        for (name, plan) in &cases {
            let (forward, both) = time(plan, streams, rows)?;
            println!("d {d:>3}  {name:<26} {forward:>8.0} {:>8.0}", both - forward);
        }
    }
    Ok(())
}
