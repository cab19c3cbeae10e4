//! Beginnings: each is the state that it says, is learned from, and comes back from a checkpoint.

use super::*;
use crate::exec::candle::CandleInput;
use crate::exec::testing::Signal;
use crate::exec::{Executor, Feed, Rows};
use crate::model::Config;
use candle_core::Device;

/// A filter with histories and both kinds of scan; its period is 8.
fn model() -> (Plan, Weights, CandleModel) {
    let text = r#"{"kind": "filter", "rate": 16000, "hop": 4, "window": 20, "basis_window": 12, "mask": "none",
        "tiers": [{"d_model": 6, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 2}},
                  {"d_model": 8, "pool": 2, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    let plan = config.plan().unwrap();
    let weights = Weights::random(&plan, 3);
    let model = CandleModel::new(&plan, &weights, DType::F32).unwrap();
    (plan, weights, model)
}

/// `count` streams of random samples.
fn sound(plan: &Plan, count: usize, rows: usize, seed: u64) -> Tensor {
    let Signal::Samples(_, x) = Signal::random(plan, count * rows, seed) else { unreachable!() };
    Tensor::from_vec(x, (count, rows, 1), &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

const SETTLING: Settling = Settling { rate: 16000, seconds: 2 };

#[test]
fn shares_are_kept_and_an_example_begins_alike_in_every_run() {
    let course = Course::Drawn { spec: BeginSpec { settled: 0.25, carried: 0.5 }, seed: 9 };
    let drawn: Vec<Begin> = (0..20_000).map(|i| course.of(i)).collect();
    assert!((0..20_000).rev().all(|i| course.of(i) == drawn[i as usize]));
    assert!(course.settles() && course.carries());
    let share = |kind| drawn.iter().filter(|b| **b == kind).count() as f64 / 20_000.0;
    assert!((share(Begin::Settled) - 0.25).abs() < 0.02 && (share(Begin::Carried) - 0.5).abs() < 0.02);
}

#[test]
fn windows_go_on_from_each_other_and_then_begin_anew() {
    let course = Course::Windows { batch: 4, windows: 3 };
    let steps = (0..9).map(|step| [0, 3].map(|slot| course.of(4 * step + slot)));
    assert!(
        steps
            .zip(0..)
            .all(|(slots, step)| { slots == [if step % 3 == 0 { Begin::Zeros } else { Begin::Carried }; 2] })
    );
    assert!(course.carries() && !course.settles());
    let whole = Course::Windows { batch: 4, windows: 1 };
    assert!((0..20).all(|i| whole.of(i) == Begin::Zeros) && !whole.carries());
    let (plan, ..) = model();
    assert!(course.check("here", &plan, 16).is_ok() && whole.check("here", &plan, 17).is_ok());
    let refused = course.check("here", &plan, 17).unwrap_err().to_string();
    assert_eq!(
        refused,
        "here: expected examples of a multiple of 8 samples, the model's period, got 17 samples"
    );
}

#[test]
fn each_example_begins_in_the_state_that_was_drawn() {
    let (plan, weights, model) = model();
    let mut begins =
        Begins::new(Course::Drawn { spec: BeginSpec { settled: 0.3, carried: 0.4 }, seed: 5 }, 1);
    begins.refresh(0, &plan, &weights, SETTLING).unwrap();
    let count = 24;
    let input = sound(&plan, count, 40, 1);
    let (_, end) = model.forward(&model.zero_state(count).unwrap(), CandleInput::Samples(&input)).unwrap();
    begins.keep(0, vec![end.clone()], 1.0);
    let state = begins.of(&model, 0, 100, count).unwrap();
    let (settled, zero) = (SETTLING.run(&plan, &weights).unwrap(), State::zero(&plan));
    let mut seen = [0; 3];
    for i in 0..count {
        let kind = begins.course.of(100 + i as u64);
        seen[kind as usize] += 1;
        let expected = match kind {
            Begin::Zeros => zero.slots.clone(),
            Begin::Settled => settled.slots.clone(),
            Begin::Carried => end.stream(&plan, i).unwrap().slots,
        };
        assert_eq!(state.stream(&plan, i).unwrap().slots, expected, "example {i}");
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn an_example_carried_on_is_the_second_half_of_one_sound() {
    let (plan, _, model) = model();
    let input = sound(&plan, 2, 80, 2);
    let halves = [0, 40].map(|at| input.narrow(1, at, 40).unwrap().contiguous().unwrap());
    let zero = model.zero_state(2).unwrap();
    let (whole, _) = model.forward(&zero, CandleInput::Samples(&input)).unwrap();
    let mut begins =
        Begins::new(Course::Drawn { spec: BeginSpec { settled: 0.0, carried: 1.0 }, seed: 5 }, 1);
    let mut outputs = Vec::new();
    for half in &halves {
        let begin = begins.of(&model, 0, 0, 2).unwrap();
        let (y, end) = model.forward(&begin, CandleInput::Samples(half)).unwrap();
        begins.keep(0, vec![end], 0.0);
        outputs.push(y);
    }
    let cut = numbers(&Tensor::cat(&outputs, 1).unwrap());
    let worst = numbers(&whole).iter().zip(&cut).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
    let (anew, _) = model.forward(&zero, CandleInput::Samples(&halves[1])).unwrap();
    assert_ne!(numbers(&anew), numbers(&outputs[1]), "the state is not used");
}

#[test]
fn a_checkpoint_brings_the_states_back_and_a_broken_step_leaves_none() {
    let (plan, weights, model) = model();
    let spec = BeginSpec { settled: 0.3, carried: 0.7 };
    let mut begins = Begins::new(Course::Drawn { spec, seed: 5 }, 2);
    begins.refresh(0, &plan, &weights, SETTLING).unwrap();
    let end = |seed| {
        let input = sound(&plan, 3, 40, seed);
        model.forward(&model.zero_state(3).unwrap(), CandleInput::Samples(&input)).unwrap().1
    };
    begins.keep(0, vec![end(1), end(2)], 1.0);
    let mut back = Begins::new(Course::Drawn { spec, seed: 5 }, 2);
    back.restore(&model, 3, &begins.state(&plan).unwrap()).unwrap();
    let states = |begins: &Begins, graph| {
        let state = begins.of(&model, graph, 0, 3).unwrap();
        (0..3).map(|i| state.stream(&plan, i).unwrap().slots).collect::<Vec<_>>()
    };
    assert_ne!(states(&begins, 0), states(&begins, 1));
    for graph in 0..2 {
        assert_eq!(states(&back, graph), states(&begins, graph));
    }
    // Batches of another size find nothing of theirs.
    back.restore(&model, 4, &begins.state(&plan).unwrap()).unwrap();
    assert!(back.carried.iter().all(Option::is_none) && back.settled.is_some());
    begins.keep(0, vec![end(3), end(4)], f64::NAN);
    assert!(begins.carried.iter().all(Option::is_none));
}

#[test]
fn the_settled_state_is_the_one_that_the_engine_begins_in() {
    let (plan, weights, model) = model();
    let mut begins =
        Begins::new(Course::Drawn { spec: BeginSpec { settled: 1.0, carried: 0.0 }, seed: 5 }, 1);
    begins.refresh(0, &plan, &weights, SETTLING).unwrap();
    let input = sound(&plan, 1, 48, 3);
    let begin = begins.of(&model, 0, 0, 1).unwrap();
    let (y, _) = model.forward(&begin, CandleInput::Samples(&input)).unwrap();
    let mut cpu = Cpu::open(&plan, &weights, Limits { max_rows: 48, max_streams: 1 });
    cpu.set_initial(&SETTLING.run(&plan, &weights).unwrap()).unwrap();
    let mut heard = vec![0.0; 48];
    cpu.advance(&[Feed { stream: 0, rows: 48 }], Rows::Samples(&numbers(&input)), &mut heard).unwrap();
    let worst = numbers(&y).iter().zip(&heard).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn a_settled_state_is_in_use_from_the_next_time_on_whether_resumed_or_not() {
    let (plan, weights, model) = model();
    let spec = BeginSpec { settled: 1.0, carried: 0.0 };
    let of = |seed| SETTLING.run(&plan, &Weights::random(&plan, seed)).unwrap().slots;
    let mut begins = Begins::new(Course::Drawn { spec, seed: 5 }, 1);
    begins.refresh(0, &plan, &weights, SETTLING).unwrap();
    assert_eq!(begins.settled.as_ref().unwrap().slots, of(3));
    let mut resumed = Begins::new(Course::Drawn { spec, seed: 5 }, 1);
    for (step, seed, in_use) in [(SETTLE_EVERY, 4, 3), (2 * SETTLE_EVERY, 5, 4), (3 * SETTLE_EVERY, 6, 5)] {
        resumed.restore(&model, 1, &begins.state(&plan).unwrap()).unwrap();
        for begins in [&mut begins, &mut resumed] {
            assert!(begins.settles_at(step) && !begins.settles_at(step + 1));
            begins.refresh(step, &plan, &Weights::random(&plan, seed), SETTLING).unwrap();
            assert_eq!(begins.settled.as_ref().unwrap().slots, of(in_use), "step {step}");
        }
    }
}
