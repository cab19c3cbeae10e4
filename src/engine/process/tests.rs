//! Lengths, alignment, mix and streams, against the executor run by hand.

use super::*;
use crate::model::Card;
use crate::plan::Weights;

fn model(channels: usize) -> Model {
    let text = format!(
        r#"{{"kind": "filter", "rate": 16000, "channels": {channels}, "hop": 16, "window": 64, "basis_window": 64,
            "lookahead": 5, "tiers": [{{"d_model": 8, "blocks": 1, "mixer": {{"kind": "s4d", "d_state": 4}}}}]}}"#
    );
    let config: Config = serde_json::from_str(&text).unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 3);
    Model::new(config, weights, Card::default()).unwrap()
}

fn sound(rate: u32, channels: usize, frames: usize) -> Sound {
    let wave = |c: usize| (0..frames).map(|n| 0.3 * (n as f32 * (0.05 + 0.01 * c as f32)).sin()).collect();
    Sound::new(SampleRate::new(rate).unwrap(), (0..channels).map(wave).collect()).unwrap()
}

fn run(model: &Model, options: ProcessOptions, sound: &Sound) -> Sound {
    Processor::open(model, options).unwrap().process(sound).unwrap()
}

#[test]
fn length_rate_and_channels_return_at_every_rate() {
    let model = model(1);
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    for (rate, channels, frames) in [
        (16_000, 1, 1),
        (16_000, 3, 68),
        (16_000, 1, 1_025),
        (8_000, 2, 777),
        (44_100, 5, 4_999),
        (11_025, 1, 1),
    ] {
        let out = processor.process(&sound(rate, channels, frames)).unwrap();
        assert_eq!((out.rate().hz(), out.channel_count(), out.frames()), (rate, channels, frames));
    }
}

#[test]
fn the_output_is_the_executors_less_the_latency() {
    let (model, sound) = (model(1), sound(16_000, 1, 3_000));
    let latency = model.latency();
    assert_eq!(latency, 69);
    let mut cpu = Cpu::open(&model.plan, &model.weights, Limits { max_rows: 64, max_streams: 1 });
    let mut input = sound.channels()[0].clone();
    input.resize(3_000 + latency, 0.0);
    let mut whole = vec![0.0; input.len()];
    cpu.advance(&[Feed { stream: 0, rows: input.len() }], Rows::Samples(&input), &mut whole).unwrap();
    let aligned = run(&model, ProcessOptions::default(), &sound);
    assert!(aligned.channels()[0] == whole[latency..]);
    let late = run(&model, ProcessOptions { align: false, ..Default::default() }, &sound);
    assert!(late.channels()[0] == whole[..3_000]);
    let dry = run(&model, ProcessOptions { align: false, mix: 0.0, ..Default::default() }, &sound);
    assert!(dry.channels()[0][latency..] == sound.channels()[0][..3_000 - latency]);
}

#[test]
fn a_filter_that_hands_its_input_through_is_in_line_at_another_rate() {
    // An untrained filter's mask begins near 1: its output follows the input.
    let (model, sound) = (model(1), sound(44_100, 1, 20_000));
    let out = run(&model, ProcessOptions::default(), &sound);
    let (x, y) = (&sound.channels()[0], &out.channels()[0]);
    let product = |shift: usize| (2_000..18_000).map(|n| x[n] * y[n + shift - 40]).sum::<f32>();
    let best = (0..=80).max_by(|a, b| product(*a).total_cmp(&product(*b))).unwrap();
    assert_eq!(best, 40, "the lag of the best correlation, less 40");
}

#[test]
fn channels_are_streams_that_do_not_mix_and_begin_afresh() {
    let (model, pair) = (model(1), sound(16_000, 2, 2_500));
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    let both = processor.process(&pair).unwrap();
    for (channel, expected) in pair.channels().iter().zip(both.channels()) {
        let alone = Sound::new(pair.rate(), vec![channel.clone()]).unwrap();
        assert_eq!(processor.process(&alone).unwrap().channels()[0], *expected);
    }
}

#[test]
fn mix_runs_from_the_input_to_the_output() {
    let (model, sound) = (model(1), sound(44_100, 2, 3_000));
    let at = |mix| run(&model, ProcessOptions { mix, ..Default::default() }, &sound);
    assert_eq!(at(0.0), sound);
    let (wet, half) = (at(1.0), at(0.5));
    for ((x, w), h) in sound.channels()[1].iter().zip(&wet.channels()[1]).zip(&half.channels()[1]) {
        assert!((0.5 * (x + w) - h).abs() < 1e-6);
    }
}

#[test]
fn linked_keeps_the_difference_of_the_channels() {
    let (model, pair) = (model(1), sound(16_000, 2, 2_000));
    let linked = ProcessOptions { stereo: Stereo::Linked, ..Default::default() };
    let out = run(&model, linked, &pair);
    let side = |s: &Sound, n: usize| s.channels()[0][n] - s.channels()[1][n];
    assert!((0..2_000).all(|n| (side(&out, n) - side(&pair, n)).abs() < 1e-6));
    assert!((0..2_000).any(|n| (out.channels()[0][n] - pair.channels()[0][n]).abs() > 1e-3));
    let same = Sound::new(pair.rate(), vec![pair.channels()[0].clone(); 2]).unwrap();
    let (linked, apart) = (run(&model, linked, &same), run(&model, ProcessOptions::default(), &same));
    for (a, b) in linked.channels()[1].iter().zip(&apart.channels()[1]) {
        assert!((a - b).abs() < 1e-5, "equal channels: linked is apart");
    }
}

#[test]
fn a_model_of_two_channels_takes_pairs() {
    let model = model(2);
    assert_eq!(run(&model, ProcessOptions::default(), &sound(16_000, 4, 500)).channel_count(), 4);
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    let message = processor.process(&sound(16_000, 3, 500)).unwrap_err().to_string();
    assert_eq!(message, "sound: expected a multiple of the model's 2 channels, got 3");
    let linked = ProcessOptions { stereo: Stereo::Linked, ..Default::default() };
    assert!(Processor::open(&model, linked).is_err());
}

#[test]
fn the_settled_state_is_where_every_sound_begins() {
    let mut model = model(1);
    let sound = sound(16_000, 1, 600);
    let zero = run(&model, ProcessOptions::default(), &sound);
    let ones = model.plan.states.iter().map(|slot| vec![0.5; slot.len()]).collect();
    model.settled = Some(ones);
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    let first = processor.process(&sound).unwrap();
    assert_ne!(first, zero);
    assert_eq!(processor.process(&sound).unwrap(), first);
}

#[test]
fn wrong_options_models_and_stops_are_errors() {
    let model = model(1);
    for mix in [-0.1, 1.1, f32::NAN] {
        assert!(Processor::open(&model, ProcessOptions { mix, ..Default::default() }).is_err());
    }
    let flag = Arc::new(AtomicBool::new(true));
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    processor.stopped_by(flag);
    assert!(matches!(processor.process(&sound(16_000, 1, 5)), Err(Error::Stopped(_))));
    let huge = Sound::new(SampleRate::new(16_000).unwrap(), vec![vec![f32::MAX; 500]]).unwrap();
    let message = Processor::open(&model, ProcessOptions::default()).unwrap().process(&huge).unwrap_err();
    assert!(message.to_string().starts_with("output of the model: expected finite samples"), "{message}");
}
