//! Live frames against whole sounds, latencies against what comes out, and every change against the sound's own steps.

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

#[test]
fn rtsan_wire() {
    let (session, remote) = Session::open(&model(1, 3), ends(48_000, 2), 1.0).unwrap();
    let (mut capture, mut playback, gauges) = wire(session);
    let mut said = vec![1.0; 128];
    playback.fill(&mut said);
    assert!(said == [0.0; 128], "silence before the first frame");
    // Nobody plays until the ring is full: a burst.
    (0..300).for_each(|_| capture.push(&[0.25; 128]));
    let lost = gauges.lost.load(Relaxed);
    assert_eq!(lost, 300 * 64 - 4_096);
    for _ in 0..1_500 {
        playback.fill(&mut said);
        capture.push(&[0.25; 128]);
    }
    assert!(said.iter().all(|y| (y - 0.25).abs() < 0.05), "{said:?}");
    assert_eq!(gauges.load.take().blocks, 1_500);
    // The first frame out is placed where the first call needs it: nothing of the burst is late.
    assert_eq!((remote.counts().dropped.load(Relaxed), remote.counts().missing.load(Relaxed)), (0, 0));
}

#[test]
fn without_a_model_what_comes_goes_out() {
    for (rate, late) in [(48_000, 7), (16_000, 0)] {
        let input = noise(rate, 5_000);
        let (mut session, mut remote) =
            Session::open(Voice::Through, Ends { margin: late, ..ends(rate, 1) }, 1.0).unwrap();
        let out = run(&mut session, &input, &[64, 3]);
        assert_eq!(remote.latency().total, late);
        assert!(out[late..] == input[..5_000 - late]);
        remote.swap(&model(1, 3)).unwrap();
        remote.swap(Voice::Through).unwrap();
        let again = run(&mut session, &noise(rate, 40_000), &[64]);
        assert_eq!(remote.counts().swapped.load(Relaxed), 2);
        assert!(again[30_000..] == noise(rate, 40_000)[30_000 - late..40_000 - late]);
    }
}

/// A generator whose tokens depend on what it heard.
fn generator() -> Model {
    let config: Config = serde_json::from_str(
        r#"{"kind": "generator", "rate": 8000, "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#,
    )
    .unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 5);
    Model::new(config, weights, Card::default()).unwrap()
}

#[test]
fn an_answer_is_what_the_model_goes_on_with_from_where_the_sound_ended() {
    use crate::audio::mu_law::{decode, encode};
    use crate::engine::{Generator, GeneratorOptions};
    let (model, rate) = (generator(), 8_000);
    let options = AnswerOptions { pause_s: 0.25, longest_s: 1.0, ..AnswerOptions::of(&model) };
    let (mut session, remote) = Session::open(Voice::Answer(&model, options), ends(rate, 1), 1.0).unwrap();
    assert_eq!(remote.latency().total, 0);
    let mut input = vec![0.0; 1_000];
    input.extend(sine(300.0, rate, 4_000));
    input.resize(20_000, 0.0);
    // A second time, and a third before the answer has come to its end.
    input.extend(sine(300.0, rate, 4_000));
    input.resize(28_500, 0.0);
    input.extend(sine(300.0, rate, 2_000));
    let out = run(&mut session, &input, &[64, 7, 129]);
    let begun = out.iter().position(|y| *y != 0.0).unwrap();
    // Within 20 ms of the end its level is that of silence; the pause is a quarter of a second.
    assert!((7_000..7_170).contains(&begun), "{begun}");
    let ended = begun + rate as usize;
    assert!(out[ended + 100..24_000].iter().all(|y| *y == 0.0), "a second at most, and 10 ms");
    // The same, by hand: all is heard until the level had fallen, 2,000 samples before.
    let kept = begun - 2_000;
    let options = GeneratorOptions { streams: 1, ..GeneratorOptions::of(&model) };
    let mut alone = Generator::open(&model, options).unwrap();
    alone.hear(0, &input[..kept].iter().map(|x| encode(*x)).collect::<Vec<_>>()).unwrap();
    let mut tokens = vec![0; 8_000];
    alone.generate(&mut tokens).unwrap();
    let expected: Vec<f32> = tokens.iter().map(|token| decode(*token)).collect();
    assert!(out[begun + 50..ended] == expected[50..], "from the end of the fade on");
    // It goes on from its own answer: another one.
    let second = (24_000..28_500).find(|n| out[*n] != 0.0).unwrap();
    assert!(out[second + 50..second + 1_000] != expected[50..1_000]);
    // Whoever speaks is listened to, at once.
    assert!(out[28_500 + 80 + 100..].iter().all(|y| *y == 0.0));
}

#[test]
fn voices_are_of_their_kinds() {
    let (filter, generator) = (model(1, 3), generator());
    let options = AnswerOptions::of(&generator);
    let refused = |voice: Voice<'_>| Session::open(voice, ends(16_000, 1), 1.0).err().unwrap().to_string();
    assert!(refused(Voice::Filter(&generator)).contains("expected a filter"));
    assert!(refused(Voice::Answer(&filter, options)).contains("expected a generator of sound"));
    for (wrong, what) in [
        (AnswerOptions { above_db: 3.0, ..options }, "level to listen above: expected -100 to 0, got 3"),
        (AnswerOptions { pause_s: f64::NAN, ..options }, "pause before an answer: expected 0.02 to 60"),
        (AnswerOptions { longest_s: 0.0, ..options }, "longest answer: expected 0.1 to 3600"),
        (AnswerOptions { class: 1, ..options }, "class"),
    ] {
        let message = refused(Voice::Answer(&generator, wrong));
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn rtsan_answer() {
    let model = generator();
    let options = AnswerOptions { pause_s: 0.1, longest_s: 0.3, ..AnswerOptions::of(&model) };
    let (mut session, _remote) = Session::open(Voice::Answer(&model, options), ends(48_000, 2), 1.0).unwrap();
    let (loud, silent) = (sine(300.0, 48_000, 960), vec![0.0; 960]);
    let mut said = vec![0.0; 960];
    let mut heard = false;
    for n in 0..200 {
        session.hear(if n % 70 < 20 { &loud } else { &silent });
        session.say(&mut said);
        heard |= said.iter().any(|y| *y != 0.0);
    }
    assert!(heard);
}

#[test]
fn a_worker_gives_the_same_so_much_later_and_catches_up() {
    let (model, input) = (model(1, 3), noise(16_000, 20_000));
    let direct = run(&mut Session::open(&model, ends(16_000, 1), 1.0).unwrap().0, &input, &[64]);
    let (session, remote) = Session::open(&model, ends(16_000, 1), 1.0).unwrap();
    let (mut capture, playback, _) = wire(session);
    let (mut worker, mut relay) = relay(playback, 64, 2);
    let mut tapped = relay.tap();
    let mut out = Vec::new();
    for (n, block) in input.chunks_exact(64).enumerate() {
        capture.push(block);
        // Held up for ten blocks.
        if !(100..110).contains(&n) {
            while worker.turn() {}
        }
        let mut said = vec![0.0; 64];
        relay.fill(&mut said);
        out.extend(said);
    }
    let counts = remote.counts();
    let of = |count: &AtomicU64| count.load(Relaxed);
    // One of the ten was made beforehand.
    assert_eq!((of(&counts.missing), of(&counts.late), of(&counts.dropped)), (576, 9, 576));
    // Two blocks ahead; here its turn comes right before the loudspeaker's call, not right after it.
    let late = (0..400).find(|late| out[late + 1_000..late + 4_000] == direct[1_000..4_000]).unwrap();
    assert!((64..=128).contains(&late), "{late}");
    assert!(out[9_000..] == direct[9_000 - late..out.len() - late], "as late as before");
    let mut all = vec![0.0; out.len() + 1];
    assert!(tapped.take(&mut all) == &out[..]);
}

#[test]
fn rtsan_worker() {
    let (session, _remote) = Session::open(&model(1, 3), ends(48_000, 2), 1.0).unwrap();
    let (mut capture, playback, _) = wire(session);
    let (mut worker, mut relay) = relay(playback, 64, 2);
    let _tapped = relay.tap();
    for n in 0..500 {
        capture.push(&[0.25; 128]);
        if n % 50 > 4 {
            worker.turn();
        }
        relay.fill(&mut [0.0; 128]);
    }
}

/// A sung vowel: harmonics of 220 Hz with vibrato, louder near the formants of an a.
fn vowel(rate: u32, frames: usize) -> Vec<f32> {
    let formant = |hz: f64| {
        [(700.0, 1.0), (1_200.0, 0.5), (2_600.0, 0.25)]
            .iter()
            .map(|(f, a)| a / (1.0 + ((hz - f) / 90.0f64).powi(2)))
            .sum::<f64>()
    };
    let sample = |n: usize| {
        let t = n as f64 / f64::from(rate);
        let phase = TAU * (220.0 * t + 0.6 * (TAU * 5.5 * t).sin() / 5.5);
        let swell = (t / 0.3).min(1.0);
        (1..16).map(|k| formant(220.0 * f64::from(k)) * (f64::from(k) * phase).sin()).sum::<f64>()
            * 0.2
            * swell
    };
    (0..frames).map(|n| sample(n) as f32).collect()
}

#[test]
fn no_change_of_the_denoiser_makes_a_step_that_a_sung_vowel_has_not() {
    let model = crate::engine::bundled::open("denoise").unwrap();
    for rate in [16_000, 48_000] {
        let input = vowel(rate, 4 * rate as usize);
        let steady = run(&mut Session::open(&model, ends(rate, 1), 1.0).unwrap().0, &input, &[64]);
        let (mut session, mut remote) = Session::open(&model, ends(rate, 1), 1.0).unwrap();
        let mut out = Vec::new();
        for (n, part) in input.chunks(rate as usize / 8).enumerate() {
            match n {
                6 => remote.mix(0.3).unwrap(),
                8 => remote.mix(1.0).unwrap(),
                10 => remote.bypass(true).unwrap(),
                12 => remote.bypass(false).unwrap(),
                // A reset, a model less and a model more.
                14 => remote.swap(&model).unwrap(),
                20 => remote.swap(Voice::Through).unwrap(),
                26 => remote.swap(&model).unwrap(),
                _ => {}
            }
            out.extend(run(&mut session, part, &[64]));
        }
        let begun = rate as usize / 2;
        let own = steepest(&steady[begun..]).max(steepest(&input[begun..]));
        let most = steepest(&out[begun..]);
        println!("{rate} Hz: steps of {most} at most, the sound's own {own}");
        assert!(own > 0.02 && most <= own, "{rate} Hz: a step of {most}, the sound's own {own}");
        assert_eq!(remote.counts().swapped.load(Relaxed), 3);
    }
}

/// What comes in is its own place, so what goes out tells how old it is, to a part of a frame.
#[test]
fn two_clocks_stay_together_within_a_block() {
    const UNIT: f64 = 1e-6;
    for (from, to, drift, block) in [
        (48_000, 48_000, 200.0, 64),
        (48_000, 48_000, -80.0, 512),
        (44_100, 48_000, -150.0, 100),
        (16_000, 96_000, 60.0, 64),
    ] {
        let between = Ends {
            rate_out: SampleRate::new(to).unwrap(),
            two_clocks: true,
            margin: block * to as usize / from as usize + block,
            ..ends(from, 1)
        };
        let (session, remote) = Session::open(Voice::Through, between, 1.0).unwrap();
        let (mut capture, mut playback, gauges) = wire(session);
        // The microphone's clock is fast by the drift; threads are up to a millisecond late.
        let rates = [f64::from(from) * (1.0 + drift * 1e-6), f64::from(to)];
        let (mut counts, mut state) = ([0usize; 2], 1u32);
        let mut jitter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1e-3 * f64::from(state) / f64::from(u32::MAX)
        };
        let (mut ages, mut said) = (Vec::new(), vec![0.0; block]);
        let mut due = [jitter(), jitter()];
        while counts[1] < 90 * to as usize {
            let end = usize::from(due[1] < due[0]);
            let now = due[end];
            if end == 0 {
                let frames: Vec<f32> =
                    (counts[0]..counts[0] + block).map(|n| (n as f64 * UNIT) as f32).collect();
                capture.push_at(&frames, now);
            } else {
                playback.fill_at(&mut said, now);
                // Half a minute is given to find the drift.
                if counts[1] > 30 * to as usize {
                    let heard = f64::from(said[0]) / UNIT / rates[0];
                    ages.push((counts[1] as f64 / rates[1] - heard) * rates[1]);
                }
            }
            counts[end] += block;
            due[end] = (counts[end] as f64 / rates[end]).max(now) + jitter();
        }
        let (least, most) = ages.iter().fold((f64::MAX, f64::MIN), |(l, m), age| (l.min(*age), m.max(*age)));
        let reported = remote.latency().total as f64;
        println!(
            "{from} to {to} Hz, {drift} ppm, blocks of {block}: {least:.1} to {most:.1} frames, reported {reported}; {:.1} ppm",
            gauges.drift()
        );
        // A block of either, and what a thread is late.
        let blocks = block as f64 * (1.0 + f64::from(to) / f64::from(from)) + 1e-3 * f64::from(to);
        assert!((least - reported).abs() < blocks && (most - reported).abs() < blocks);
        assert!(most - least < 0.25e-3 * f64::from(to), "it wanders from {least} to {most}");
        assert!((gauges.drift() - drift).abs() < 10.0, "{} for {drift}", gauges.drift());
        assert_eq!(remote.counts().missing.load(Relaxed), 0);
    }
}
