//! What must hold of any bytes whatever; run by the fuzzer (`fuzz/`) and over the kept inputs by `tests/fuzzed.rs`.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use cascabel::audio::read_bytes;
use cascabel::exec::cpu::Cpu;
use cascabel::exec::reference::Reference;
use cascabel::exec::{Executor, Feed, Limits, Rows};
use cascabel::model::Model;
use cascabel::plan::{Input, Plan, Weights};
use cascabel::train::recipe::Recipe;

/// Rows that a model is run for: more than one pass, not a multiple of anything.
const ROWS: usize = 21;

/// A model file is refused in one line, or is a model that runs and is written as it was read.
pub fn model_file(bytes: &[u8]) {
    match Model::from_bytes(bytes, "in") {
        Err(error) => one_line(&error),
        Ok(model) => {
            let written = model.to_bytes().expect("what was read can be written");
            let again = Model::from_bytes(&written, "again").expect("what was written can be read");
            assert!(again.weights == model.weights && again.card == model.card);
            assert!(again.config == model.config && again.settled == model.settled);
            runs(&model.plan, &model.weights);
        }
    }
}

/// A recipe is refused in one line, or survives the card; its model is refused in one line, or runs.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Recipe::parse(text, "in") {
        Err(error) => one_line(&error),
        Ok(recipe) => {
            let again = Recipe::parse(&recipe.to_text(), "card").expect("the card's text is a recipe");
            // Debug text, because NaN is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("{recipe:?}"));
            match recipe.model.plan() {
                Err(error) => one_line(&error),
                Ok(plan) if plan.param_count() < 1 << 16 => runs(&plan, &Weights::random(&plan, recipe.seed)),
                Ok(_) => {}
            }
        }
    }
}

/// A sound file is refused in one line, or is a sound that keeps its promises.
pub fn sound(bytes: &[u8]) {
    match read_bytes(bytes.to_vec(), "in") {
        Err(error) => one_line(&error),
        Ok(sound) => {
            assert!(sound.frames() > 0 && sound.channel_count() > 0);
            assert!(sound.channels().iter().all(|channel| channel.len() == sound.frames()));
            assert!(sound.channels().iter().flatten().all(|x| x.is_finite()));
        }
    }
}

fn one_line(error: &cascabel::Error) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.chars().count() < 2_000, "{text}");
}

/// Runs a small model row by row and in blocks, to the same bits, and near the reference while the numbers are sane.
fn runs(plan: &Plan, weights: &Weights) {
    let heavy = plan.cost().flop_per_row() > 1e6 || plan.state_len() > 1 << 20 || plan.values.len() > 500;
    if heavy || plan.period() > 4096 || plan.values.iter().any(|v| v.width > 1 << 14) {
        return;
    }
    let whole = outputs(&mut Cpu::open(plan, weights, Limits { max_rows: 8, max_streams: 2 }), &[ROWS]);
    let cut =
        outputs(&mut Cpu::open(plan, weights, Limits { max_rows: 8, max_streams: 2 }), &[1, 3, ROWS - 4]);
    let bits = |y: &[f32]| y.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&whole), bits(&cut));
    let mut reference = Reference::<f32>::open(plan, weights, Limits { max_rows: 8, max_streams: 2 });
    let plain = outputs(&mut reference, &[ROWS]);
    assert_eq!(plain.len(), whole.len());
}

/// The rows that stream 1 hands out when fed in these pieces.
fn outputs(executor: &mut dyn Executor, pieces: &[usize]) -> Vec<f32> {
    let (input, width) = (executor.plan().input, executor.plan().value(executor.plan().output).width);
    let mut all = Vec::new();
    let mut at = 0;
    for rows in pieces {
        let mut output = vec![0.0; rows * width];
        let feed = [Feed { stream: 1, rows: *rows }];
        let (samples, tokens): (Vec<f32>, Vec<u32>) = match input {
            Input::Samples(n) => ((at * n..(at + rows) * n).map(|i| (i as f32).sin()).collect(), Vec::new()),
            Input::Tokens(n) => (Vec::new(), (at..at + rows).map(|i| (i * 37 % n) as u32).collect()),
        };
        let given = match input {
            Input::Samples(_) => Rows::Samples(&samples),
            Input::Tokens(_) => Rows::Tokens(&tokens),
        };
        executor.advance(&feed, given, &mut output).expect("a call as documented");
        all.extend(output);
        at += rows;
    }
    all
}
