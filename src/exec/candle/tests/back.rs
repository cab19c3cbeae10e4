//! The way back in its forms: of the weights alone, in segments, of samples that completed nothing.

use super::*;

/// Samples that nobody learns lie behind frames, delays and convolutions of every configured model.
#[test]
fn the_weights_gradients_are_the_same_without_those_of_the_samples() -> Result<()> {
    for case in built()? {
        let model = CandleModel::new(&case.plan, &Weights::random(&case.plan, 4), DType::F64)?;
        let (x, state) = (input(&case.plan, 2, 70, DType::F64)?, random_state(&model, 2, 3)?);
        let grads = |weights_only: bool| -> Result<Gradients> {
            let (y, _, tape) = model.record(&state, kind(&case.plan, &x), None)?;
            let tape = if weights_only { tape.of_weights() } else { tape };
            tape.backward(&y, None)
        };
        let (all, of_weights) = (grads(false)?, grads(true)?);
        assert!(of_weights.input.is_none(), "{}", case.name);
        for (a, b) in all.params.iter().zip(&of_weights.params) {
            let [a, b] = [a, b].map(|x| x.as_ref().map(numbers).transpose());
            assert_eq!(a?, b?, "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn segments_give_the_gradients_of_the_whole() -> Result<()> {
    let plan = everything()?;
    let model = CandleModel::new(&plan, &Weights::random(&plan, 4), DType::F64)?;
    let (x, state) = (samples(2, 61, 2, DType::F64)?, random_state(&model, 2, 3)?);
    let dropout = Some(Dropout { seed: 1, step: 2, first_stream: 0 });
    let (y, end, tape) = model.record(&state, CandleInput::Samples(&x), dropout)?;
    let (gy, slots) = seeds(&y, &end).map_err(train_error)?;
    let whole = tape.backward(&gy, Some(&slots))?;
    for rows in [1, 7, 30, 61, 100] {
        let (parts, last, segments) =
            model.record_segments(&state, CandleInput::Samples(&x), dropout, rows)?;
        let grads = segments.backward(&gy, Some(&slots))?;
        let pairs = whole.params.iter().zip(&grads.params).chain(whole.slots.iter().zip(&grads.slots));
        let pairs = pairs.filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
        let inputs = whole.input.iter().zip(&grads.input);
        let compare = || -> candle_core::Result<()> {
            let outputs = [(&y, &parts)].into_iter().chain(end.slots.iter().zip(&last.slots));
            for (a, b) in outputs.chain(pairs).chain(inputs).filter(|(a, _)| a.elem_count() > 0) {
                assert!(most(&(a - b)?)? <= 1e-10 * most(a)?.max(1e-3), "segments of {rows}");
            }
            Ok(())
        };
        compare().map_err(train_error)?;
        let missing = |g: &Gradients| g.params.iter().filter(|p| p.is_none()).count();
        assert_eq!(missing(&whole), missing(&grads));
        let (_, _, again) = model.record_segments(&state, CandleInput::Samples(&x), dropout, rows)?;
        let of_weights = again.of_weights().backward(&gy, Some(&slots))?;
        assert!(of_weights.input.is_none() && missing(&of_weights) == missing(&grads));
        for (a, b) in grads.params.iter().zip(&of_weights.params) {
            let (Some(a), Some(b)) = (a, b) else { continue };
            assert_eq!(numbers(a)?, numbers(b)?, "segments of {rows}, weights alone");
        }
    }
    assert!(model.record_segments(&state, CandleInput::Samples(&x), None, 0).is_err());
    let (y, _, tape) = model.record(&state, CandleInput::Samples(&x), None)?;
    let short = y.narrow(1, 0, 3).map_err(train_error)?;
    assert!(tape.backward(&short, None).is_err());
    let (_, _, tape) = model.record(&state, CandleInput::Samples(&x), None)?;
    assert!(tape.backward(&y, Some(&[])).is_err());
    let (_, _, segments) = model.record_segments(&state, CandleInput::Samples(&x), None, 7)?;
    assert!(segments.backward(&short, None).is_err());
    Ok(())
}

#[test]
fn samples_that_complete_no_frame_have_a_gradient_of_zeros() -> Result<()> {
    let mut b = PlanBuilder::new();
    let x = b.samples(1);
    let frames = b.frame("frames", x, 8, 8)?;
    let y = b.linear("l", frames, 8, true, Act::None)?;
    let y = b.overlap("out", y, 8, 1)?;
    let plan = b.build(y)?;
    let model = CandleModel::new(&plan, &Weights::random(&plan, 1), DType::F64)?;
    let (x, zero) = (samples(1, 29, 1, DType::F64)?, model.zero_state(1)?);
    let (y, _, segments) = model.record_segments(&zero, CandleInput::Samples(&x), None, 8)?;
    let parts = segments.backward(&y, None)?.input;
    let (y, _, tape) = model.record(&zero, CandleInput::Samples(&x), None)?;
    let whole = tape.backward(&y, None)?.input;
    let (Some(parts), Some(whole)) = (parts, whole) else { return Err(crate::Error::Train("none".into())) };
    assert_eq!(numbers(&parts)?, numbers(&whole)?);
    Ok(())
}
