//! The loss of answers, and that a run learns them.

use candle_core::{Device, Tensor};

use super::*;
use crate::train::examples::Examples;
use crate::train::run::{Event, RunOptions, train};
use crate::train::task::Judge;

#[test]
fn only_answers_count() -> Result<()> {
    let mut maker =
        Puzzles { spec: RecallSpec { puzzle: Puzzle::SelectiveCopying, length: 20 }, vocabulary: 6, seed: 3 };
    let mut examples = Examples::with_capacity(2, maker.rows(), &Device::Cpu);
    (0..2).for_each(|i| examples.push(&maker.make(i)));
    let (shape, mut dice) = ((2, 36, 6), Dice::new(4, 4));
    let logits: Vec<f32> = (0..2 * 36 * 6).map(|_| dice.normal()).collect();
    let cost = |logits: &[f32]| -> Result<(f64, Vec<f32>)> {
        let y = Tensor::from_slice(logits, shape, &Device::Cpu).map_err(crate::exec::candle::train_error)?;
        let (verdict, grad) = TokenJudge.judge(&y, &examples)?;
        let grad = grad.flatten_all().and_then(|g| g.to_vec1()).map_err(crate::exec::candle::train_error)?;
        Ok((verdict.values()?.iter().map(|v| v.total).sum(), grad))
    };
    let (_, grad) = cost(&logits)?;
    for (i, found) in grad.iter().enumerate() {
        let at = |by: f32| {
            let mut moved = logits.clone();
            moved[i] += by;
            cost(&moved).map(|c| c.0)
        };
        let expected = (at(0.01)? - at(-0.01)?) / 0.02;
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{i}: {found} for {expected}");
        assert_eq!(i / 6 % 36 < 20, *found == 0.0, "{i}");
    }
    Ok(())
}

/// Sequences of four rows: what follows the key is one of two places.
#[test]
fn a_short_puzzle_is_learned() -> Result<()> {
    let text = "name = 'm'\nseed = 2\nrecall = { puzzle = 'induction-heads', length = 4 }
        schedule = { peak = 1e-2, last = 1e-3, warm_up = 10, steps = 400 }
        run = { batch = 16, group = 16, valid_every = 1000, valid_examples = 200 }
        optimiser = { ema = 0.9 }
        model = { kind = 'generator', rate = 8000, vocabulary = 4, tiers = [
            { d_model = 16, blocks = 2, norm = 'rms', mixer = { kind = 'mamba', d_state = 4 } }] }";
    let text = text.replace("\n            {", " {");
    let recipe = Recipe::parse(&text, "m.toml")?;
    let folder = tempfile::tempdir().map_err(|e| crate::Error::io("create", "a folder", e))?;
    let mut first = None;
    let mut observe = |event: &Event| {
        if let Event::Step { loss, .. } = event {
            first.get_or_insert(*loss);
        }
    };
    let options = &mut RunOptions::new(folder.path().join("run"), Device::Cpu, &mut observe);
    let model = train(&recipe, options)?.ok_or_else(|| crate::Error::Train("alone".into()))?;
    let right =
        right(&model.plan, &model.weights, RecallSpec { puzzle: Puzzle::InductionHeads, length: 4 }, 300, 2)?;
    // One of three tokens by chance.
    assert!(right > 0.9, "{right}, from {first:?} bits");
    Ok(())
}
