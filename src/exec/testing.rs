//! What every executor is tested on: plans that use each op in each of its forms, random signals, random cuts.

use super::{Executor, Feed, Rows, State};
use crate::model::Config;
use crate::plan::{Act, Draws, Init, Input, NormKind, Plan, PlanBuilder, Rule, View, Weights};
use crate::{Error, Result};

/// A plan, its weights and a name to print.
pub struct Case {
    pub name: String,
    pub plan: Plan,
    pub weights: Weights,
    /// Of a bare selective scan: Δ is in the columns d..2d, log-uniform from 1e-3 to this.
    steps: Option<(usize, f64)>,
}

impl Case {
    /// Random input rows.
    pub fn signal(&self, rows: usize, seed: u64) -> Signal {
        let mut signal = Signal::random(&self.plan, rows, seed);
        if let (Some((d, most)), Signal::Samples(width, x)) = (self.steps, &mut signal) {
            let mut draws = Draws::new(seed, 2);
            for row in x.chunks_mut(*width) {
                row[d..2 * d].fill_with(|| (1e-3 * (most / 1e-3).powf(draws.uniform())) as f32);
            }
        }
        signal
    }
}

fn case(name: impl Into<String>, b: PlanBuilder, y: View) -> Result<Case> {
    let (name, plan) = (name.into(), b.build(y)?);
    let weights = Weights::random(&plan, 7);
    Ok(Case { name, plan, weights, steps: None })
}

/// A bare scan; a selective one takes (u, Δ, B, C) from the columns of its input.
fn scan(d: usize, n: usize, complex: bool, rule: Option<Rule>) -> Result<Case> {
    let mut b = PlanBuilder::new();
    let y = match rule {
        Some(rule) => {
            let x = b.samples(d);
            b.invariant_scan("s.", x, n, complex, rule)?
        }
        None => {
            let per_row = if complex { 2 * n } else { n };
            let at = [0, d, 2 * d, 2 * d + per_row];
            let wide = [d, d, per_row, per_row];
            let x = b.samples(at[3] + per_row);
            let inputs = [b.columns(x, at[0], wide[0])?, b.columns(x, at[1], wide[1])?];
            let pairs = [b.columns(x, at[2], wide[2])?, b.columns(x, at[3], wide[3])?];
            b.selective_scan("s.", [inputs[0], inputs[1], pairs[0], pairs[1]], n, complex)?
        }
    };
    let mut case = case(format!("scan d{d} n{n} complex {complex} {rule:?}"), b, y)?;
    case.steps = rule.is_none().then_some((d, if complex { 0.1 } else { 1.0 }));
    Ok(case)
}

/// One op at a time, at awkward widths.
pub fn single_ops() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (d, n) in [(1, 1), (16, 16), (21, 5), (48, 64)] {
        for complex in [false, true] {
            for rule in [None, Some(Rule::Zoh), Some(Rule::Bilinear)] {
                cases.push(scan(d, n, complex, rule)?);
            }
        }
    }
    for act in [Act::None, Act::Silu, Act::Gelu, Act::Relu, Act::Sigmoid, Act::Tanh, Act::Softplus, Act::Glu]
    {
        for (d_in, d_out) in [(1, 1), (7, 16), (64, 33), (130, 100), (17, 70)] {
            let mut b = PlanBuilder::new();
            let x = b.samples(d_in);
            let y = b.linear_with("l", x, d_out, Some(Init::Normal(1.0)), Init::Normal(0.5), act)?;
            cases.push(case(format!("linear {d_in}→{d_out} {act:?}"), b, y)?);
        }
    }
    for d in [1, 3, 16, 41] {
        type Make = fn(&mut PlanBuilder, View) -> Result<View>;
        let makes: [(&str, Make); 10] = [
            ("layer norm", |b, x| b.norm("n", x, NormKind::Layer, 1e-5)),
            ("rms norm", |b, x| b.norm("n", x, NormKind::Rms, 1e-5)),
            ("conv 4", |b, x| b.conv("c", x, 4, true, Act::Silu)),
            ("conv 1", |b, x| b.conv("c", x, 1, false, Act::None)),
            ("gate", |b, x| b.gate("g", x, x, Act::Silu)),
            ("activate", |b, x| b.activate("a", x, Act::Gelu)),
            ("add", |b, x| b.add("a", x, x)),
            ("delay", |b, x| b.delay("d", x, 5)),
            ("film", |b, x| {
                let st = b.linear("st", x, 2 * x.width, true, Act::None)?;
                b.film("f", x, st)
            }),
            ("dropout", |b, x| b.dropout("d", x, 0.3)),
        ];
        for (name, make) in makes {
            let mut b = PlanBuilder::new();
            let x = b.samples(d);
            let y = make(&mut b, x)?;
            cases.push(case(format!("{name} d{d}"), b, y)?);
        }
        for (period, window, shift, overlap) in [(1, 1, 1, 1), (3, 7, 1, 2), (4, 4, 2, 1), (5, 16, 1, 3)] {
            let mut b = PlanBuilder::new();
            let x = b.samples(d);
            let f = b.frame("f", x, period, window)?;
            let z = b.linear("l", f, period * overlap * d, false, Act::None)?;
            let y = b.overlap_add("o", z, period, shift, overlap)?;
            cases.push(case(
                format!("frame {period}/{window}, overlap {overlap} shift {shift}, d{d}"),
                b,
                y,
            )?);
        }
    }
    Ok(cases)
}

/// A residual Mamba or S4D block.
fn block(b: &mut PlanBuilder, name: &str, x: View, complex: bool, selective: bool) -> Result<View> {
    let d = x.width;
    let n =
        b.norm(&format!("{name}.norm"), x, if complex { NormKind::Layer } else { NormKind::Rms }, 1e-5)?;
    let mixed = if selective {
        let states = if complex { 8 } else { 4 };
        let xz = b.linear(&format!("{name}.in"), n, 4 * d, false, Act::None)?;
        let (u, z) = (b.columns(xz, 0, 2 * d)?, b.columns(xz, 2 * d, 2 * d)?);
        let u = b.conv(&format!("{name}.conv"), u, 4, true, Act::Silu)?;
        let p = b.linear(&format!("{name}.x"), u, 2 + 2 * states, false, Act::None)?;
        let (dt, bb, cc) = (b.columns(p, 0, 2)?, b.columns(p, 2, states)?, b.columns(p, 2 + states, states)?);
        let dt = b.linear_with(
            &format!("{name}.dt"),
            dt,
            2 * d,
            Some(Init::DtBias(1e-3, 1e-1)),
            Init::Uniform(0.7),
            Act::Softplus,
        )?;
        let y = b.selective_scan(&format!("{name}."), [u, dt, bb, cc], 4, complex)?;
        let y = b.gate(&format!("{name}.gate"), y, z, Act::Silu)?;
        b.linear(&format!("{name}.out"), y, d, false, Act::None)?
    } else {
        let rule = if complex { Rule::Zoh } else { Rule::Bilinear };
        let y = b.invariant_scan(&format!("{name}."), n, 5, complex, rule)?;
        let y = b.activate(&format!("{name}.act"), y, Act::Gelu)?;
        b.linear(&format!("{name}.glu"), y, d, true, Act::Glu)?
    };
    b.add(&format!("{name}.add"), x, mixed)
}

/// A three-tier waveform model with every mixer, a delay, FiLM and both shifts; periods 4 and 8.
pub fn tiered() -> Result<Case> {
    let mut b = PlanBuilder::new();
    let x = b.samples(1);
    let frames = b.frame("frames", x, 4, 10)?;
    let outer = b.linear("encode", frames, 20, true, Act::None)?;
    let outer = block(&mut b, "outer.0", outer, true, false)?;
    let outer = block(&mut b, "outer.1", outer, false, true)?;
    let down = b.frame("down", outer, 2, 2)?;
    let inner = b.linear("down.mix", down, 24, true, Act::None)?;
    let inner = block(&mut b, "inner.0", inner, true, true)?;
    let inner = block(&mut b, "inner.1", inner, false, false)?;
    let up = b.linear("up.mix", inner, 40, true, Act::None)?;
    let up = b.overlap("up", up, 2, 2)?;
    let late = b.delay("late", outer, 3)?;
    let sum = b.add("skip", up, late)?;
    let st = b.linear("film.st", outer, 40, true, Act::None)?;
    let sum = b.film("film", sum, st)?;
    let sum = b.dropout("dropout", sum, 0.2)?;
    let decoded = b.linear("decode", sum, 8, false, Act::Tanh)?;
    let y = b.overlap_add("out", decoded, 4, 1, 2)?;
    case("tiered", b, y)
}

/// A flat token model with a 40-way head.
pub fn flat() -> Result<Case> {
    let mut b = PlanBuilder::new();
    let mut x = b.embed("embedding", 40, 24)?;
    for i in 0..2 {
        x = block(&mut b, &format!("layers.{i}"), x, i == 1, true)?;
    }
    let x = b.norm("norm_f", x, NormKind::Rms, 1e-5)?;
    let y = b.linear("head", x, 40, false, Act::None)?;
    case("flat", b, y)
}

/// Models as their configurations build them: a flat generator; one of three tiers, S4D around Mamba, and a filter with older rows
/// and complex masks, both of period 16.
pub fn built() -> Result<Vec<Case>> {
    let configs = [
        (
            "flat generator",
            r#"{"kind": "generator", "rate": 16000, "vocabulary": 32, "tied": true, "tiers": [
                {"d_model": 12, "blocks": 2, "mixer": {"kind": "mamba", "d_state": 4}, "norm": "rms"}]}"#,
        ),
        (
            "tiered generator",
            r#"{"kind": "generator", "rate": 16000, "vocabulary": 32, "tiers": [
                {"d_model": 8, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 4}, "feed_forward": 2},
                {"d_model": 12, "blocks": 1, "pool": 4, "shift": 2, "mixer": {"kind": "s4d", "d_state": 3, "rule": "bilinear"}},
                {"d_model": 20, "blocks": 2, "pool": 4, "shift": 2, "mixer": {"kind": "mamba", "d_state": 4}}]}"#,
        ),
        (
            "generator of classes",
            r#"{"kind": "generator", "rate": 8000, "vocabulary": 16, "classes": ["a", "b", "c"], "tiers": [
                {"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#,
        ),
        (
            "filter",
            r#"{"kind": "filter", "rate": 16000, "hop": 4, "window": 24, "basis_window": 8, "lookahead": 3, "mask": "tanh",
                "taps": [0, 1, 3], "quadrature": true, "features": 20, "features_act": "gelu", "tiers": [
                {"d_model": 12, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 4}},
                {"d_model": 16, "blocks": 1, "pool": 4, "mixer": {"kind": "mamba", "d_state": 3, "complex": true}}]}"#,
        ),
    ];
    let case = |(name, text): (&str, &str)| {
        let config = serde_json::from_str::<Config>(text);
        let plan = config.map_err(|e| Error::input(name, "a configuration", e.to_string()))?.plan()?;
        let weights = Weights::random(&plan, 7);
        Ok(Case { name: name.into(), plan, weights, steps: None })
    };
    configs.into_iter().map(case).collect()
}

/// Random input for a plan.
pub enum Signal {
    Samples(usize, Vec<f32>),
    Tokens(Vec<u32>),
}

impl Signal {
    pub fn random(plan: &Plan, rows: usize, seed: u64) -> Self {
        let mut draws = Draws::new(seed, 1);
        match plan.input {
            Input::Samples(w) => Self::Samples(w, (0..rows * w).map(|_| draws.normal() as f32).collect()),
            Input::Tokens(n) => Self::Tokens((0..rows).map(|_| draws.below(n) as u32).collect()),
        }
    }

    pub fn rows(&self, from: usize, to: usize) -> Rows<'_> {
        match self {
            Self::Samples(w, x) => Rows::Samples(&x[from * w..to * w]),
            Self::Tokens(x) => Rows::Tokens(&x[from..to]),
        }
    }
}

/// Runs a signal through stream 0 in the given cuts; the outputs and the final state.
pub fn run(executor: &mut dyn Executor, signal: &Signal, cuts: &[usize]) -> Result<(Vec<f32>, State)> {
    let width = executor.plan().value(executor.plan().output).width;
    let (mut at, mut out) = (0, Vec::new());
    executor.reset(0);
    for rows in cuts {
        let mut y = vec![f32::NAN; rows * width];
        executor.advance(&[Feed { stream: 0, rows: *rows }], signal.rows(at, at + rows), &mut y)?;
        out.extend(y);
        at += rows;
    }
    Ok((out, executor.save(0)))
}

/// A random cut of `total` rows into calls of 1 to `most` rows.
pub fn random_cuts(total: usize, most: usize, draws: &mut Draws) -> Vec<usize> {
    let (mut left, mut cuts) = (total, Vec::new());
    while left > 0 {
        let rows = (1 + draws.below(most)).min(left);
        cuts.push(rows);
        left -= rows;
    }
    cuts
}

/// The largest difference relative to the largest number of the second.
pub fn max_norm(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0, |m: f64, (x, y)| m.max((f64::from(*x) - y).abs())) / scale
}

/// Fails with the case's name when a measured error is above its bound (or not a number).
pub fn within(name: &str, error: f64, bound: f64) -> Result<()> {
    if error <= bound {
        Ok(())
    } else {
        Err(Error::input(name, format!("an error of at most {bound:e}"), format!("{error:e}")))
    }
}
