//! The whole executor: gradients by finite differences, cuts against wholes, and the scalar reference.

mod back;

use candle_core::{DType, Device, Tensor};

use super::{CandleInput, CandleModel, CandleState, Dropout, Gradients, train_error};
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
        Some(Init::DtBias(1e-3, 1e-1)),
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
    let inner = b.norm("inner.norm", mid, NormKind::Layer, 1e-5)?;
    let inner = b.linear("inner", inner, 6, true, Act::Gelu)?;
    let mid = b.add("inner.add", mid, inner)?;
    let door = b.columns(st, 3, 6)?;
    let gated = b.gate("gated", mid, door, Act::Silu)?;
    let mid = b.add("gated.add", gated, mid)?;
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

/// A state with random contents.
pub(super) fn random_state(model: &CandleModel, streams: usize, position: u64) -> Result<CandleState> {
    let mut state = model.zero_state(streams)?;
    let random = |(i, slot): (usize, &Tensor)| {
        let values = Tensor::from_vec(noise(slot.elem_count(), 77 + i as u64), slot.shape(), slot.device())?;
        values.to_dtype(slot.dtype())? * 0.3
    };
    let slots: candle_core::Result<Vec<_>> = state.slots.iter().enumerate().map(random).collect();
    state.slots = slots.map_err(train_error)?;
    state.position = position;
    Ok(state)
}

/// The gradients of [`loss`] by an output and a final state: another one for each number.
fn seeds(y: &Tensor, state: &CandleState) -> candle_core::Result<(Tensor, Vec<Option<Tensor>>)> {
    let seed = |x: &Tensor, seed| {
        Tensor::from_vec(noise(x.elem_count(), seed), x.shape(), x.device())?.to_dtype(x.dtype())
    };
    let slot =
        |(i, slot): (usize, &Tensor)| (slot.elem_count() > 0).then(|| seed(slot, 100 + i as u64)).transpose();
    Ok((seed(y, 5)?, state.slots.iter().enumerate().map(slot).collect::<candle_core::Result<_>>()?))
}

/// A loss over outputs and final state.
fn loss(y: &Tensor, state: &CandleState) -> candle_core::Result<f64> {
    let (gy, slots) = seeds(y, state)?;
    let sum = |x: &Tensor, g: &Tensor| (x * g)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    let mut total = sum(y, &gy)?;
    for (slot, g) in state.slots.iter().zip(&slots) {
        total += g.as_ref().map_or(Ok(0.0), |g| sum(slot, g))?;
    }
    Ok(total)
}

/// Output and final state of a call; the gradients of [`loss`] by the weights, the initial state and the samples.
pub(super) fn there_and_back(
    model: &CandleModel,
    state: &CandleState,
    input: CandleInput<'_>,
) -> Result<(Tensor, CandleState, Gradients)> {
    let (y, end, tape) = model.record(state, input, None)?;
    let (gy, slots) = seeds(&y, &end).map_err(train_error)?;
    Ok((y, end, tape.backward(&gy, Some(&slots))?))
}

fn most(x: &Tensor) -> candle_core::Result<f64> {
    x.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()
}

fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    t.flatten_all().and_then(|t| t.to_dtype(DType::F64)?.to_vec1::<f64>()).map_err(train_error)
}

/// Holds a gradient against differences of `value`, which takes an element's number and how far it is moved.
fn check_gradient(
    name: &str,
    found: Option<&Tensor>,
    count: usize,
    value: &mut dyn FnMut(usize, f64) -> Result<f64>,
) -> Result<()> {
    let found = found.map_or_else(|| Ok(vec![0.0; count]), numbers)?;
    assert_eq!(found.len(), count);
    let scale = found.iter().fold(0f64, |m, g| m.max(g.abs()));
    assert!(scale > 0.0, "{name} has no gradient");
    for at in (0..count).step_by(1 + count / 6) {
        let expected = (value(at, 1e-5)? - value(at, -1e-5)?) / 2e-5;
        let error = (found[at] - expected).abs() / (expected.abs() + 1e-2 * scale);
        assert!(error < 1e-3, "{name} at {at}: {} for {expected}", found[at]);
    }
    Ok(())
}

/// A tensor with one element moved.
fn moved(x: &Tensor, at: usize, by: f64) -> Result<Tensor> {
    let mut values = numbers(x)?;
    values[at] += by;
    Tensor::from_vec(values, x.shape(), &Device::Cpu).map_err(train_error)
}

#[test]
fn a_model_of_every_op_passes_the_gradient_check() -> Result<()> {
    let plan = everything()?;
    let model = CandleModel::new(&plan, &Weights::random(&plan, 3), DType::F64)?;
    // From 5, 1 and 29 rows: with one row, ops of the coarser tiers have none and hand their gradient to the state alone.
    for rows in [1, 29] {
        let x = samples(2, rows, 2, DType::F64)?;
        let state = random_state(&model, 2, 5)?;
        let (_, _, grads) = there_and_back(&model, &state, CandleInput::Samples(&x))?;
        let value = |model: &CandleModel, state: &CandleState, x: &Tensor| -> Result<f64> {
            let (y, end) = model.forward(state, CandleInput::Samples(x))?;
            loss(&y, &end).map_err(train_error)
        };
        let ranges: Vec<_> = model.layout().ranges().collect();
        for ((param, range), found) in plan.params.iter().zip(&ranges).zip(&grads.params) {
            if rows == 1 && found.is_none() {
                continue;
            }
            check_gradient(&param.name, found.as_ref(), range.len(), &mut |at, by| {
                let mut other = model.clone();
                other.set_flat(moved(model.flat(), range.start + at, by)?)?;
                value(&other, &state, &x)
            })?;
        }
        for (i, (slot, found)) in plan.states.iter().zip(&grads.slots).enumerate() {
            if slot.is_empty() {
                continue;
            }
            check_gradient(&slot.name, found.as_ref(), 2 * slot.len(), &mut |at, by| {
                let mut other = state.clone();
                other.slots[i] = moved(&state.slots[i], at, by)?;
                value(&model, &other, &x)
            })?;
        }
        check_gradient("input", grads.input.as_ref(), x.elem_count(), &mut |at, by| {
            value(&model, &state, &moved(&x, at, by)?)
        })?;
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
        let state = random_state(&model, streams, position)?;
        let (whole, end, expected) = there_and_back(&model, &state, kind(plan, &x))?;
        for case in 0..cuts {
            let (mut parts, mut tapes, mut now, mut at) = (Vec::new(), Vec::new(), state.clone(), 0);
            for cut in random_cuts(rows, [2, 8, 30][case % 3], &mut draws) {
                let part = x.narrow(1, at, cut).map_err(train_error)?;
                let (y, next, tape) = model.record(&now, kind(plan, &part), None)?;
                parts.push(y);
                tapes.push((tape, at, cut));
                (now, at) = (next, at + cut);
            }
            assert_eq!(now.position, position + rows as u64);
            let (gy, mut slots) = seeds(&whole, &now).map_err(train_error)?;
            let (mut params, mut inputs) = (vec![None; plan.params.len()], Vec::new());
            while let Some((tape, at, cut)) = tapes.pop() {
                let gy = gy.narrow(1, at, cut).and_then(|g| g.contiguous()).map_err(train_error)?;
                let grads = tape.backward(&gy, Some(&slots))?;
                slots = grads.slots;
                inputs.extend(grads.input);
                for (sum, part) in params.iter_mut().zip(grads.params) {
                    *sum = match (sum.take(), part) {
                        (Some(sum), Some(part)) => Some(Tensor::add(&sum, &part).map_err(train_error)?),
                        (sum, part) => sum.or(part),
                    };
                }
            }
            inputs.reverse();
            let compare = || -> candle_core::Result<()> {
                let joined = Tensor::cat(&parts, 1)?;
                assert!(most(&(&joined - &whole)?)? < bound * most(&whole)?);
                for (a, b) in now.slots.iter().zip(&end.slots).filter(|(a, _)| a.elem_count() > 0) {
                    assert!(most(&(a - b)?)? < bound * most(b)?.max(1e-2));
                }
                let found = params.iter().zip(&expected.params).chain(slots.iter().zip(&expected.slots));
                for (i, (a, b)) in found.enumerate() {
                    match (a, b) {
                        (Some(a), Some(b)) if a.elem_count() > 0 => {
                            assert!(
                                most(&(a - b)?)? <= bound * most(b)?,
                                "gradient {i}, position {position}"
                            );
                        }
                        (a, b) => assert_eq!(a.is_some(), b.is_some(), "gradient {i}, position {position}"),
                    }
                }
                if let Some(whole) = &expected.input {
                    let cut = Tensor::cat(&inputs, 1)?;
                    assert!(most(&(cut - whole)?)? <= bound * most(whole)?, "input, position {position}");
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
fn the_drivers_codes_are_told_in_words() {
    let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
    let told = train_error(candle_core::Error::Msg(format!("{full}\n   0: a backtrace"))).to_string();
    assert!(told.starts_with("training: the GPU's memory is full") && !told.contains('\n'), "{told}");
    assert!(told.ends_with("(CUDA_ERROR_OUT_OF_MEMORY)"), "{told}");
    assert_eq!(train_error(candle_core::Error::Msg("other".into())).to_string(), "training: other");
    for name in ["cuda:x", "gpu", "cpu:1"] {
        assert!(super::device(name).is_err(), "{name}");
    }
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
    let (y, _, grads) = there_and_back(&model, &model.zero_state(1)?, CandleInput::Tokens(&tokens))?;
    assert!(grads.params.iter().all(Option::is_some) && grads.input.is_none());
    assert_eq!(model.export()?, weights);
    assert!(model.forward(&state, CandleInput::Samples(&y)).is_err());
    Ok(())
}

#[test]
fn a_token_beyond_the_tables_is_an_error() -> Result<()> {
    for tables in [&[("embedding", 5, 0.1)][..], &[("embedding", 5, 0.1), ("class", 3, 1.0)]] {
        let mut b = PlanBuilder::new();
        let x = b.embed_all(tables, 3)?;
        let plan = b.build(x)?;
        let model = CandleModel::new(&plan, &Weights::random(&plan, 1), DType::F32)?;
        let all: u32 = tables.iter().map(|(_, count, _)| *count as u32).product();
        let tokens = |last: u32| Tensor::new(&[[0, last]], &Device::Cpu).map_err(train_error);
        let zero = model.zero_state(1)?;
        assert!(model.forward(&zero, CandleInput::Tokens(&tokens(all - 1)?)).is_ok());
        assert!(model.forward(&zero, CandleInput::Tokens(&tokens(all)?)).is_err(), "{tables:?}");
    }
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
    let zero = model.zero_state(2)?;
    let (_, _, grads) = there_and_back(&model, &zero, CandleInput::Tokens(&tokens))?;
    let found = grads.params[0].as_ref().map(numbers).transpose()?.unwrap_or_default();
    assert_eq!(found.len(), 15);
    for (at, found) in found.iter().enumerate() {
        let value = |by: f64| {
            let mut other = model.clone();
            other.set_flat(moved(model.flat(), at, by)?)?;
            let (y, end) = other.forward(&zero, CandleInput::Tokens(&tokens))?;
            loss(&y, &end).map_err(train_error)
        };
        let expected = (value(1e-5)? - value(-1e-5)?) / 2e-5;
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
        let model = CandleModel::new(&plan, &Weights::random(&plan, 2), DType::F32)?;
        let flat = super::run::continuous(&model, &scan).flat().and_then(|t| t.to_vec1::<f32>());
        let flat = flat.map_err(train_error)?;
        let want: Vec<f32> = [&expected.a, &expected.b, &expected.c].into_iter().flatten().copied().collect();
        assert_eq!(flat.len(), want.len() + 4);
        for (got, want) in flat.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-7 * want.abs(), "{got} {want}");
        }
    }
    Ok(())
}
