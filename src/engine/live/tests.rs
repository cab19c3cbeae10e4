//! Live frames against whole sounds, latencies against what comes out, and every change against the sound's own steps.

mod threads;
mod voices;

use std::f64::consts::TAU;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::*;
use crate::audio::{SampleRate, Sound};
use crate::engine::{ProcessOptions, Processor};
use crate::model::{Card, Config, Model};
use crate::plan::Weights;

/// A filter whose masks begin near 1: what comes in comes out, below half its rate.
fn model(channels: usize, seed: u64) -> Model {
    let text = format!(
        r#"{{"kind": "filter", "rate": 16000, "channels": {channels}, "hop": 16, "window": 64, "basis_window": 64,
            "lookahead": 5, "tiers": [{{"d_model": 8, "blocks": 1, "mixer": {{"kind": "s4d", "d_state": 4}}}}]}}"#
    );
    let config: Config = serde_json::from_str(&text).unwrap();
    let weights = Weights::random(&config.plan().unwrap(), seed);
    Model::new(config, weights, Card::default()).unwrap()
}

fn ends(hz: u32, channels: usize) -> Ends {
    let rate = SampleRate::new(hz).unwrap();
    Ends {
        rate_in: rate,
        rate_out: rate,
        channels_in: channels,
        channels_out: channels,
        two_clocks: false,
        margin: 0,
        burst: 4_096,
    }
}

fn sine(hz: f64, rate: u32, frames: usize) -> Vec<f32> {
    (0..frames).map(|n| (0.5 * (TAU * hz * n as f64 / f64::from(rate)).sin()) as f32).collect()
}

/// Noise below a share of half the rate of 16 kHz: sines of many frequencies.
fn noise(rate: u32, frames: usize) -> Vec<f32> {
    let below = 0.8 * f64::from(rate.min(16_000)) / 2.0;
    let tone = |n: usize, k: u32| {
        (TAU * below * f64::from(k) / 40.3 * n as f64 / f64::from(rate) + f64::from(k * k)).sin()
    };
    (0..frames).map(|n| (0.05 * (1..40).map(|k| tone(n, k)).sum::<f64>()) as f32).collect()
}

/// Frames through a session, as many out as in, in such blocks, over and over.
fn run(session: &mut Session, input: &[f32], blocks: &[usize]) -> Vec<f32> {
    let (mut out, mut at) = (Vec::new(), 0);
    for block in blocks.iter().cycle() {
        let block = input.get(at..(at + block).min(input.len())).unwrap();
        if block.is_empty() {
            break;
        }
        at += block.len();
        session.hear(block);
        let mut said = vec![0.0; block.len()];
        session.say(&mut said);
        out.extend(said);
    }
    out
}

fn steepest(samples: &[f32]) -> f32 {
    samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn at_the_models_rate_it_is_the_whole_sound_bit_for_bit(blocks in prop::collection::vec(1usize..700, 1..9)) {
        let (model, input) = (model(1, 3), noise(16_000, 4_000));
        let sound = Sound::new(SampleRate::new(16_000).unwrap(), vec![input.clone()]).unwrap();
        let whole = Processor::open(&model, ProcessOptions::default()).unwrap().process(&sound).unwrap();
        let (mut session, remote) = Session::open(&model, ends(16_000, 1), 1.0).unwrap();
        let latency = remote.latency().total;
        prop_assert_eq!(latency, model.latency());
        let out = run(&mut session, &input, &blocks);
        prop_assert!(out[latency..] == whole.channels()[0][..4_000 - latency]);
        prop_assert_eq!(remote.counts().missing.load(Relaxed), 0);
    }

    #[test]
    fn blocks_change_no_bit_at_another_rate(blocks in prop::collection::vec(1usize..700, 1..9)) {
        let (model, input) = (model(1, 3), noise(44_100, 6_000));
        let of = |blocks: &[usize]| run(&mut Session::open(&model, ends(44_100, 1), 0.7).unwrap().0, &input, blocks);
        prop_assert!(of(&blocks) == of(&[64]));
    }
}

#[test]
fn the_latency_is_what_is_reported() {
    let model = model(1, 3);
    for rate in [8_000, 16_000, 44_100, 48_000, 96_000, 192_000] {
        for block in [16, 64, 100, 1_024] {
            let (mut session, remote) = Session::open(&model, ends(rate, 1), 1.0).unwrap();
            let latency = remote.latency().total;
            let input = noise(rate, latency + 4 * rate as usize / 10);
            let out = run(&mut session, &input, &[block]);
            // The lag of the best correlation, between frames too: a parabola through the best and its neighbours.
            let product = |lag: usize| {
                (lag..out.len())
                    .skip(out.len() / 4)
                    .map(|n| f64::from(input[n - lag]) * f64::from(out[n]))
                    .sum::<f64>()
            };
            let best = (latency.saturating_sub(20)..=latency + 20)
                .max_by(|a, b| product(*a).total_cmp(&product(*b)))
                .unwrap();
            let (a, b, c) = (product(best - 1), product(best), product(best + 1));
            let lag = best as f64 + 0.5 * (a - c) / (a - 2.0 * b + c);
            assert!(
                (lag - latency as f64).abs() < 0.5,
                "{rate} Hz, blocks of {block}: {lag:.2}, reported {latency}"
            );
            let parts = remote.latency();
            let sum = parts.to_model + parts.model + parts.from_model + parts.margin as f64;
            assert!((0.0..1.0).contains(&(latency as f64 - sum)), "{rate} Hz: {parts:?}");
        }
    }
}

#[test]
fn bypass_and_mix_of_0_are_the_input_late() {
    let (model, input) = (model(1, 3), noise(48_000, 9_000));
    for by in ["mix", "bypass"] {
        let (mut session, remote) =
            Session::open(&model, ends(48_000, 1), if by == "mix" { 0.0 } else { 1.0 }).unwrap();
        if by == "bypass" {
            remote.bypass(true).unwrap();
        }
        let (out, latency) = (run(&mut session, &input, &[64]), remote.latency().total);
        let begun = 2_000;
        assert!(out[begun + latency..] == input[begun..9_000 - latency], "{by}");
    }
}

#[test]
fn no_change_makes_a_step_that_the_sound_has_not() {
    for rate in [16_000, 48_000] {
        let (first, second) = (model(1, 3), model(1, 4));
        let input = sine(440.0, rate, 3 * rate as usize);
        let (mut session, mut remote) = Session::open(&first, ends(rate, 1), 1.0).unwrap();
        let mut out = Vec::new();
        for (n, part) in input.chunks(rate as usize / 8).enumerate() {
            match n {
                2 => remote.mix(0.3).unwrap(),
                4 => remote.bypass(true).unwrap(),
                5 => remote.bypass(false).unwrap(),
                6 => remote.mix(1.0).unwrap(),
                8 => remote.swap(&second).unwrap(),
                12 => remote.swap(&second).unwrap(),
                // Two at once: one after the other.
                16 => (0..2).for_each(|_| remote.swap(&first).unwrap()),
                _ => {}
            }
            out.extend(run(&mut session, part, &[64]));
        }
        let settled = rate as usize / 8;
        let (own, most) = (steepest(&input), steepest(&out[settled..]));
        assert!(most < 1.1 * own, "{rate} Hz: a step of {most}, the sound's own {own}");
        assert_eq!(remote.counts().swapped.load(Relaxed), 4);
    }
}

#[test]
fn after_a_swap_the_sound_is_where_it_was() {
    let (model, input) = (model(1, 3), noise(48_000, 48_000));
    let (mut session, mut remote) =
        Session::open(&model, Ends { margin: 64, ..ends(48_000, 1) }, 1.0).unwrap();
    let mut out = run(&mut session, &input[..9_000], &[100]);
    // Something in hand, as between callbacks of two devices.
    session.hear(&input[9_000..9_050]);
    remote.swap(&model).unwrap();
    for block in input[9_050..].chunks(100) {
        let mut said = vec![0.0; block.len()];
        session.say(&mut said);
        session.hear(block);
        out.extend(said);
    }
    let (mut steady, _) = Session::open(&model, Ends { margin: 64, ..ends(48_000, 1) }, 1.0).unwrap();
    let expected = run(&mut steady, &input, &[100]);
    let off = out.iter().zip(&expected).skip(40_000).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The other's rows begin elsewhere; a frame off would be 0.1.
    assert!(off < 5e-3, "{off}");
    assert_eq!(remote.counts().swapped.load(Relaxed), 1);
}

#[test]
fn after_a_stall_the_latency_is_what_it_was_within_a_second() {
    let (model, rate) = (model(1, 3), 48_000);
    for stall in [480, 9_600] {
        let input = sine(440.0, rate, 4 * rate as usize);
        let (mut session, remote) =
            Session::open(&model, Ends { burst: 16_384, ..ends(rate, 1) }, 1.0).unwrap();
        let mut out = Vec::new();
        for (n, block) in input.chunks(64).enumerate() {
            // From 1 s on nothing is heard for a while; then all of it at once.
            let begun = rate as usize / 64;
            let late = begun..begun + stall / 64;
            if !late.contains(&n) {
                if n == late.end {
                    session.hear(&input[64 * late.start..64 * late.end]);
                }
                session.hear(block);
            }
            let mut said = vec![0.0; block.len()];
            session.say(&mut said);
            out.extend(said);
        }
        let counts = remote.counts();
        let of = |count: &AtomicU64| count.load(Relaxed) as usize;
        // All that was late was missed, but for what a row of the model had in hand, and as much was left out.
        let late = stall / 64 * 64;
        assert!((late - 3..=late).contains(&of(&counts.missing)), "{counts:?}");
        assert_eq!(of(&counts.dropped), of(&counts.missing), "{counts:?}");
        let step = 1.2 * steepest(&input);
        assert!(steepest(&out[12_000..]) < step, "{}", steepest(&out[12_000..]));
        // A second after the stall nothing tells it from a run without one.
        let steady = run(&mut Session::open(&model, ends(rate, 1), 1.0).unwrap().0, &input, &[64]);
        let from = 2 * rate as usize + stall;
        assert!(out[from..] == steady[from..], "{stall}");
    }
}

#[test]
fn channels_go_where_they_belong() {
    let (model, rate) = (model(1, 3), 16_000);
    let (left, right) = (noise(rate, 2_000), sine(300.0, rate, 2_000));
    let alone = |x: &[f32]| run(&mut Session::open(&model, ends(rate, 1), 0.6).unwrap().0, x, &[64]);
    let through = |ends: Ends, input: &[f32]| {
        let (mut session, _) = Session::open(&model, ends, 0.6).unwrap();
        let mut out = vec![0.0; 2_000 * ends.channels_out];
        for (heard, said) in input.chunks(64 * ends.channels_in).zip(out.chunks_mut(64 * ends.channels_out)) {
            session.hear(heard);
            session.say(said);
        }
        out
    };
    let pair: Vec<f32> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
    let of = |out: &[f32], c: usize, n: usize| out.iter().skip(c).step_by(n).copied().collect::<Vec<_>>();
    let both = through(ends(rate, 2), &pair);
    assert!(of(&both, 0, 2) == alone(&left) && of(&both, 1, 2) == alone(&right));
    let three = through(Ends { channels_out: 3, ..ends(rate, 1) }, &left);
    assert!((0..3).all(|c| of(&three, c, 3) == alone(&left)));
    let one = through(Ends { channels_in: 2, ..ends(rate, 1) }, &pair);
    let middle: Vec<f32> = left.iter().zip(&right).map(|(l, r)| (l + r) / 2.0).collect();
    assert!(one == alone(&middle));
    assert!(Session::open(&self::model(2, 3), ends(rate, 1), 1.0).is_err());
}

#[test]
fn other_rates_out_and_clocks_that_differ() {
    let model = model(1, 3);
    let (from, to) = (44_100, 48_000);
    let between =
        Ends { rate_out: SampleRate::new(to).unwrap(), two_clocks: true, margin: 48, ..ends(from, 1) };
    let (mut session, remote) = Session::open(&model, between, 1.0).unwrap();
    // The microphone's clock is 200 parts in a million fast.
    let drift = 200.0;
    session.follow(drift);
    let true_rate = f64::from(from) * (1.0 + drift * 1e-6);
    let input: Vec<f32> =
        (0..2 * from).map(|n| (0.5 * (TAU * 440.0 * f64::from(n) / true_rate).sin()) as f32).collect();
    let mut out = Vec::new();
    for block in input.chunks(147) {
        session.hear(block);
        let wanted = ((out.len() / 160 + 1) * 160) - out.len();
        let mut said = vec![0.0; wanted];
        session.say(&mut said);
        out.extend(said);
    }
    let latency = remote.latency().total as f64;
    // The masks' gain, near 1.
    let gain = f64::from(out[40_000..60_000].iter().fold(0.0f32, |most, y| most.max(*y))) / 0.5;
    let off = (40_000..90_000)
        .map(|j| f64::from(out[j]) - gain * 0.5 * (TAU * 440.0 * (j as f64 - latency) / f64::from(to)).sin());
    let worst = off.map(f64::abs).fold(0.0, f64::max);
    assert!(worst < 0.02, "{worst}");
}

#[test]
fn nonsense_is_refused_or_silent() {
    let model = model(1, 3);
    for mix in [-0.1, 1.1, f32::NAN] {
        assert!(Session::open(&model, ends(16_000, 1), mix).is_err());
    }
    let (mut session, remote) = Session::open(&model, ends(16_000, 1), 1.0).unwrap();
    let mut out = run(&mut session, &[f32::NAN, f32::INFINITY, 1.0], &[3]);
    out.extend(run(&mut session, &noise(16_000, 2_000), &[64]));
    assert!(out.iter().all(|y| y.is_finite()));
    assert!(Session::open(&model, Ends { channels_in: 0, ..ends(16_000, 1) }, 1.0).is_err());
    let (mut pair, _) = Session::open(&model, ends(16_000, 2), 1.0).unwrap();
    pair.hear(&[0.5; 7]);
    pair.say(&mut [0.0; 5]);
    // Nobody takes what is asked.
    let refused = (0..100).find_map(|_| remote.mix(0.5).err()).unwrap().to_string();
    assert!(refused.starts_with("the session is not available"), "{refused}");
}

/// Under the real-time sanitizer: see `exec/cpu/rtsan_tests.rs`.
#[test]
fn rtsan_live() {
    let model = model(1, 3);
    let (mut session, mut remote) =
        Session::open(&model, Ends { channels_out: 2, two_clocks: true, ..ends(44_100, 1) }, 1.0).unwrap();
    let input = noise(44_100, 100);
    for n in 0..400 {
        if n == 50 {
            remote.swap(&model).unwrap();
            remote.bypass(true).unwrap();
        }
        if n % 37 != 0 {
            session.hear(&input);
        }
        session.say(&mut [0.0; 200]);
    }
    remote.tidy();
    assert_eq!(remote.counts().swapped.load(Relaxed), 1);
}
