//! The whole executor: gradients by finite differences, cuts against wholes, and the scalar reference.

use candle_core::{DType, Device, Tensor, Var};

use super::{CandleInput, CandleModel, CandleState, train_error};
use crate::Result;
use crate::exec::reference::Reference;
use crate::exec::testing::{built, random_cuts, within};
use crate::exec::{Limits, Rows};
use crate::plan::{Act, Draws, Init, Input, NormKind, Plan, PlanBuilder, Rule, View, Weights};

pub(super) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        ((z >> 11) as f64 / (1u64 << 52) as f64 - 1.0) as f32
    };
    (0..n).map(|_| next()).collect()
}

/// Mamba's inside: Δ, B, C from the row, a conv before, a gate after.
fn mamba(b: &mut PlanBuilder, name: &str, x: View, n: usize, complex: bool) -> Result<View> {
    let d = x.width;
    let wide = b.linear(&format!("{name}.in_proj"), x, 2 * d, false, Act::None)?;
    let (u, z) = (b.columns(wide, 0, d)?, b.columns(wide, d, d)?);
    let u = b.conv(&format!("{name}.conv1d"), u, 4, true, Act::Silu)?;
    let per_row = if complex { 2 * n } else { n };
    let dbc = b.linear(&format!("{name}.x_proj"), u, 1 + 2 * per_row, false, Act::None)?;
    let (dt, bc) = (b.columns(dbc, 0, 1)?, b.columns(dbc, 1, per_row)?);
    let c = b.columns(dbc, 1 + per_row, per_row)?;
    let dt = b.linear_with(
        &format!("{name}.dt_proj"),
        dt,
        d,
        Some(Init::DtBias),
        Init::Uniform(1.0),
        Act::Softplus,
    )?;
    let y = b.selective_scan(&format!("{name}."), [u, dt, bc, c], n, complex)?;
    let y = b.gate(&format!("{name}.gate"), y, z, Act::Silu)?;
    b.linear(&format!("{name}.out_proj"), y, d, false, Act::None)
}

/// Every op, with nested tiers (periods 2 and 6) and an overlapping frame outside.
pub(super) fn everything() -> Result<Plan> {
    let mut b = PlanBuilder::new();
    let x = b.samples(2);
    let x = b.linear("in", x, 4, true, Act::Tanh)?;
    let x = b.norm("norm.rms", x, NormKind::Rms, 1e-5)?;
    let held = b.delay("held", x, 3)?;
    let fine = b.invariant_scan("s4d.", x, 3, true, Rule::Zoh)?;
    let fine = b.invariant_scan("s4d.real.", fine, 2, false, Rule::Bilinear)?;
    let down = b.frame("down", fine, 2, 3)?;
    let mid = b.linear("mid", down, 6, true, Act::Glu)?;
    let mid = b.norm("norm.layer", mid, NormKind::Layer, 1e-5)?;
    let mid = mamba(&mut b, "mamba", mid, 3, false)?;
    let deep = b.frame("deep", mid, 3, 3)?;
    let deep = b.linear("deep.in", deep, 4, true, Act::Gelu)?;
    let deep = mamba(&mut b, "mamba.complex", deep, 2, true)?;
    let deep = b.invariant_scan("s4d.bilinear.", deep, 2, true, Rule::Bilinear)?;
    let deep = b.invariant_scan("s4d.zoh.", deep, 2, false, Rule::Zoh)?;
    let deep = b.linear("deep.out", deep, 36, true, Act::Sigmoid)?;
    let up = b.overlap_add("deep.up", deep, 3, 2, 2)?;
    let mid = b.add("mid.add", mid, up)?;
    let mid = b.activate("mid.act", mid, Act::Silu)?;
    let st = b.linear("mid.film", mid, 12, true, Act::None)?;
    let mid = b.film("film", mid, st)?;
    let mid = b.dropout("drop", mid, 0.5)?;
    let mid = b.linear("mid.out", mid, 8, true, Act::Relu)?;
    let up = b.overlap("up", mid, 2, 1)?;
    let y = b.add("add", up, held)?;
    let y = b.conv("conv", y, 1, false, Act::Softplus)?;
    let y = b.linear("out", y, 2, true, Act::None)?;
    b.build(y)
}

pub(super) fn samples(streams: usize, rows: usize, width: usize, dtype: DType) -> Result<Tensor> {
    let x = Tensor::from_vec(noise(streams * rows * width, 9), (streams, rows, width), &Device::Cpu);
    x.and_then(|x| x.to_dtype(dtype)).map_err(train_error)
}

/// A state of variables with random contents, and the variables.
pub(super) fn random_state(
    model: &CandleModel,
    streams: usize,
    position: u64,
) -> Result<(CandleState, Vec<Var>)> {
    let mut state = model.zero_state(streams)?;
    let var = |(i, slot): (usize, &Tensor)| {
        let values = Tensor::from_vec(noise(slot.elem_count(), 77 + i as u64), slot.shape(), slot.device())?;
        Var::from_tensor(&(values.to_dtype(slot.dtype())? * 0.3)?)
    };
    let vars: candle_core::Result<Vec<_>> = state.slots.iter().enumerate().map(var).collect();
    let vars = vars.map_err(train_error)?;
    state.slots = vars.iter().map(|v| v.as_tensor().clone()).collect();
    state.position = position;
    Ok((state, vars))
}

/// A loss over outputs and final state, each number weighted differently.
pub(super) fn loss(y: &Tensor, state: &CandleState) -> candle_core::Result<Tensor> {
    let weighted = |x: &Tensor, seed| {
        let weights = Tensor::from_vec(noise(x.elem_count(), seed), x.shape(), x.device())?;
        x.mul(&weights.to_dtype(x.dtype())?)?.sum_all()
    };
    let mut total = weighted(y, 5)?;
    for (i, slot) in state.slots.iter().enumerate().filter(|(_, s)| s.elem_count() > 0) {
        total = (total + weighted(slot, 100 + i as u64)?)?;
    }
    Ok(total)
}

fn most(x: &Tensor) -> candle_core::Result<f64> {
    x.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()
}

#[test]
fn a_model_of_every_op_passes_the_gradient_check() -> Result<()> {
    let plan = everything()?;
    let model = CandleModel::new(&plan, &Weights::random(&plan, 3), DType::F64)?;
    let x = samples(2, 29, 2, DType::F64)?;
    let (state, slots) = random_state(&model, 2, 5)?;
    let value = || -> Result<Tensor> {
        let now = CandleState { slots: slots.iter().map(|v| v.as_tensor().clone()).collect(), position: 5 };
        let (y, end) = model.forward(&now, CandleInput::Samples(&x))?;
        loss(&y, &end).map_err(train_error)
    };
    let (y, end) = model.forward(&state, CandleInput::Samples(&x))?;
    let grads = loss(&y, &end).and_then(|l| l.backward()).map_err(train_error)?;
    let names = plan.params.iter().map(|p| &p.name).chain(plan.states.iter().map(|s| &s.name));
    for (name, var) in names.zip(model.vars().iter().chain(&slots)) {
        let count = var.elem_count();
        if count == 0 {
            continue;
        }
        let numbers = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f64>()).map_err(train_error);
        let found = grads.get(var).map(numbers).transpose()?.unwrap_or_else(|| vec![0.0; count]);
        let before = numbers(var)?;
        let scale = found.iter().fold(0f64, |m, g| m.max(g.abs()));
        assert!(scale > 0.0, "{name} has no gradient");
        for at in (0..count).step_by(1 + count / 6) {
            let set = |by: f64| {
                let mut moved = before.clone();
                moved[at] += by;
                let moved = Tensor::from_vec(moved, var.shape(), &Device::Cpu);
                moved.and_then(|t| var.set(&t)).map_err(train_error)
            };
            let step = 1e-5;
            set(step)?;
            let above = value()?.to_scalar::<f64>().map_err(train_error)?;
            set(-step)?;
            let below = value()?.to_scalar::<f64>().map_err(train_error)?;
            set(0.0)?;
            let expected = (above - below) / (2.0 * step);
            let error = (found[at] - expected).abs() / (expected.abs() + 1e-2 * scale);
            assert!(error < 1e-3, "{name} at {at}: {} for {expected}", found[at]);
        }
    }
    Ok(())
}

/// Random input of a plan's kind: `[streams, rows, width]` samples or `[streams, rows]` tokens.
fn input(plan: &Plan, streams: usize, rows: usize, dtype: DType) -> Result<Tensor> {
    match plan.input {
        Input::Samples(width) => samples(streams, rows, width, dtype),
        Input::Tokens(vocabulary) => {
            let mut draws = Draws::new(9, 3);
            let tokens = (0..streams * rows).map(|_| draws.below(vocabulary) as u32).collect();
            Tensor::from_vec(tokens, (streams, rows), &Device::Cpu).map_err(train_error)
        }
    }
}

fn kind<'a>(plan: &Plan, x: &'a Tensor) -> CandleInput<'a> {
    match plan.input {
        Input::Samples(_) => CandleInput::Samples(x),
        Input::Tokens(_) => CandleInput::Tokens(x),
    }
}

/// Random cuts, so many from each position, against the whole: outputs, final state, gradients.
fn cuts_change_nothing(plan: &Plan, positions: u64, cuts: usize, bound: f64) -> Result<()> {
    let model = CandleModel::new(plan, &Weights::random(plan, 4), DType::F32)?;
    let (rows, streams) = (61, 2);
    let x = input(plan, streams, rows, DType::F32)?;
    let mut draws = Draws::new(41, 0);
    for position in 0..positions {
        let (state, slots) = random_state(&model, streams, position)?;
        let (whole, end) = model.forward(&state, kind(plan, &x))?;
        let grads = loss(&whole, &end).and_then(|l| l.backward()).map_err(train_error)?;
        for case in 0..cuts {
            let (mut parts, mut now, mut at) = (Vec::new(), state.clone(), 0);
            for cut in random_cuts(rows, [2, 8, 30][case % 3], &mut draws) {
                let part = x.narrow(1, at, cut).map_err(train_error)?;
                let (y, next) = model.forward(&now, kind(plan, &part))?;
                parts.push(y);
                (now, at) = (next, at + cut);
            }
            assert_eq!(now.position, position + rows as u64);
            let compare = || -> candle_core::Result<()> {
                let joined = Tensor::cat(&parts, 1)?;
                assert!(most(&(&joined - &whole)?)? < bound * most(&whole)?);
                for (a, b) in now.slots.iter().zip(&end.slots).filter(|(a, _)| a.elem_count() > 0) {
                    assert!(most(&(a - b)?)? < bound * most(b)?.max(1e-2));
                }
                let cut = loss(&joined, &now)?.backward()?;
                for var in model.vars().iter().chain(&slots).filter(|v| v.elem_count() > 0) {
                    let (Some(a), Some(b)) = (cut.get(var), grads.get(var)) else {
                        candle_core::bail!("a variable has no gradient")
                    };
                    assert!(most(&(a - b)?)? <= bound * most(b)?, "{:?}, position {position}", var.shape());
                }
                Ok(())
            };
            compare().map_err(train_error)?;
        }
    }
    Ok(())
}

#[test]
fn two_hundred_random_cuts_leave_outputs_state_and_gradients_within_1e_5() -> Result<()> {
    cuts_change_nothing(&everything()?, 6, 34, 1e-5)
}

#[test]
fn models_as_configured_are_cut_in_every_phase() -> Result<()> {
    built()?.iter().try_for_each(|case| cuts_change_nothing(&case.plan, 16, 3, 1e-5))
}

/// The bound in f64 is above its rounding: the reference's Ā and B̄ were rounded to f32 once.
fn follows_the_reference(name: &str, plan: &Plan, double: f64) -> Result<()> {
    let weights = Weights::random(plan, 5);
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::F64, double)] {
        let model = CandleModel::new(plan, &weights, dtype)?;
        let mut reference = Reference::<f64>::open(plan, &weights, Limits { max_rows: 200, max_streams: 1 });
        let x = input(plan, 1, 130, dtype)?;
        let numbers = |t: &Tensor| {
            t.flatten_all().and_then(|t| t.to_dtype(DType::F64)?.to_vec1::<f64>()).map_err(train_error)
        };
        let given = numbers(&x)?;
        let tokens: Vec<u32> = given.iter().map(|x| *x as u32).collect();
        let given: Vec<f32> = given.iter().map(|x| *x as f32).collect();
        let rows = match plan.input {
            Input::Samples(_) => Rows::Samples(&given),
            Input::Tokens(_) => Rows::Tokens(&tokens),
        };
        let (y, end) = model.forward(&model.zero_state(1)?, kind(plan, &x))?;
        let expected = reference.advance_one(0, 130, rows);
        let error = |found: &[f64], expected: &[f64]| {
            let scale = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
            found.iter().zip(expected).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale
        };
        within(&format!("{name} {dtype:?}"), error(&numbers(&y)?, &expected), bound)?;
        for (slot, expected) in end.slots.iter().zip(reference.slots(0)) {
            assert_eq!(slot.elem_count(), expected.len());
            within(&format!("{name} {dtype:?}, state"), error(&numbers(slot)?, expected), bound)?;
        }
        let saved = end.stream(plan, 0)?;
        let again = CandleState::stack(plan, &[saved], dtype)?;
        assert_eq!(again.position, 130);
    }
    Ok(())
}

#[test]
fn agrees_with_the_scalar_reference() -> Result<()> {
    follows_the_reference("every op", &everything()?, 1e-6)?;
    built()?.iter().try_for_each(|case| follows_the_reference(&case.name, &case.plan, 1e-5))
}

#[test]
fn tokens_are_looked_up_and_the_table_has_a_gradient() -> Result<()> {
    let mut b = PlanBuilder::new();
    let x = b.embed("embedding", 5, 3)?;
    let table = b.find_param("embedding.weight");
    let Some(table) = table else { return Err(crate::Error::Train("no table".into())) };
    let y = b.linear_tied("head", x, table)?;
    let plan = b.build(y)?;
    let weights = Weights::random(&plan, 1);
    let model = CandleModel::new(&plan, &weights, DType::F32)?;
    let tokens = Tensor::new(&[[4u32, 0, 4, 2]], &Device::Cpu).map_err(train_error)?;
    let (y, state) = model.forward(&model.zero_state(1)?, CandleInput::Tokens(&tokens))?;
    assert_eq!((y.dims(), state.position), ([1, 4, 5].as_slice(), 4));
    let got = y.get(0).and_then(|y| y.get(1)?.to_vec1::<f32>()).map_err(train_error)?;
    let rows: Vec<&[f32]> = weights.get(table).chunks(3).collect();
    for (got, row) in got.iter().zip(&rows) {
        let expected: f32 = row.iter().zip(rows[0]).map(|(a, b)| a * b).sum();
        assert!((got - expected).abs() < 1e-6);
    }
    let grads = y.sqr().and_then(|y| y.sum_all()?.backward()).map_err(train_error)?;
    assert!(model.gradients(&grads).iter().all(Option::is_some));
    assert_eq!(model.export()?, weights);
    assert!(model.forward(&state, CandleInput::Samples(&y)).is_err());
    Ok(())
}

#[test]
fn the_tables_gradient_is_that_of_finite_differences() -> Result<()> {
    let mut b = PlanBuilder::new();
    let x = b.embed("embedding", 5, 3)?;
    let y = b.linear("head", x, 4, true, Act::Tanh)?;
    let plan = b.build(y)?;
    let model = CandleModel::new(&plan, &Weights::random(&plan, 1), DType::F64)?;
    // Token 4 comes twice, tokens 1 and 3 not at all.
    let tokens = Tensor::new(&[[4u32, 0], [4, 2]], &Device::Cpu).map_err(train_error)?;
    let value = || -> Result<Tensor> {
        let (y, end) = model.forward(&model.zero_state(2)?, CandleInput::Tokens(&tokens))?;
        loss(&y, &end).map_err(train_error)
    };
    let grads = value()?.backward().map_err(train_error)?;
    let table = &model.vars()[0];
    let numbers = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f64>()).map_err(train_error);
    let (before, found) = (numbers(table)?, grads.get(table).map(numbers).transpose()?.unwrap_or_default());
    assert_eq!(found.len(), before.len());
    for (at, found) in found.iter().enumerate() {
        let moved = |by: f64| {
            let mut moved = before.clone();
            moved[at] += by;
            let moved = Tensor::from_vec(moved, table.shape(), &Device::Cpu);
            moved.and_then(|t| table.set(&t)).map_err(train_error)?;
            value()?.to_scalar::<f64>().map_err(train_error)
        };
        let expected = (moved(1e-5)? - moved(-1e-5)?) / 2e-5;
        moved(0.0)?;
        assert!((found - expected).abs() <= 1e-3 * expected.abs() + 1e-9, "{at}: {found} for {expected}");
        assert_eq!(*found != 0.0, [0, 2, 4].contains(&(at / 3)), "row {}", at / 3);
    }
    Ok(())
}

#[test]
fn fixed_coefficients_equal_those_of_the_plan() -> Result<()> {
    for (complex, rule) in
        [(false, Rule::Zoh), (false, Rule::Bilinear), (true, Rule::Zoh), (true, Rule::Bilinear)]
    {
        let mut b = PlanBuilder::new();
        let x = b.samples(4);
        let y = b.invariant_scan("s.", x, 8, complex, rule)?;
        let plan = b.build(y)?;
        let weights = Weights::random(&plan, 2);
        let crate::plan::OpKind::Scan(scan) = plan.ops[0].kind else { continue };
        let Some(expected) = crate::plan::coefficients(&scan, &weights, 1.0) else { continue };
        let crate::plan::Dynamics::Invariant { log_dt, c, rule } = scan.dynamics else { continue };
        let model = CandleModel::new(&plan, &weights, DType::F32)?;
        let param = |id: crate::plan::ParamId| model.vars()[id.0].as_tensor();
        let continuous = super::discretise::Continuous {
            a_log: param(scan.a_log),
            a_imag: scan.a_imag.map(param),
            skip: param(scan.skip),
        };
        let flat = continuous.invariant(param(log_dt), param(c), rule).and_then(|t| t.to_vec1::<f32>());
        let flat = flat.map_err(train_error)?;
        let want: Vec<f32> = [&expected.a, &expected.b, &expected.c].into_iter().flatten().copied().collect();
        assert_eq!(flat.len(), want.len() + 4);
        for (got, want) in flat.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-7 * want.abs(), "{got} {want}");
        }
    }
    Ok(())
}
