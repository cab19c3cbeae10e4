//! What may be between the ends: filters, generators that answer, nothing; and going over from one to another.

use super::*;

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
fn a_word_ends_its_answer_however_calls_are_cut() {
    use crate::engine::GeneratorOptions;
    let model = crate::engine::bundled::open("digits").unwrap();
    let own = AnswerOptions::of(&model);
    let (rate, longest) = (8_000, 1.0);
    let mut input = sine(300.0, rate, 4_000);
    input.resize(14_400, 0.0);
    // One of the first few is a word and no more.
    let ended = (0..8).any(|seed| {
        let generator = GeneratorOptions { seed, ..own.generator };
        let options = AnswerOptions { generator, pause_s: 0.2, longest_s: longest, ..own };
        let said = [&[64][..], &[7, 300, 1]].map(|blocks| {
            let (mut session, remote) =
                Session::open(Voice::Answer(&model, options), ends(rate, 1), 1.0).unwrap();
            assert_eq!(remote.counts().mood(), Some(Mood::Listening));
            let (first, rest) = input.split_at(6_400);
            let mut said = run(&mut session, &first[..3_200], blocks);
            assert_eq!(remote.counts().mood(), Some(Mood::Hearing));
            said.extend(run(&mut session, &first[3_200..], blocks));
            assert_eq!(remote.counts().mood(), Some(Mood::Answering));
            said.extend(run(&mut session, rest, blocks));
            assert_eq!(remote.counts().mood(), Some(Mood::Listening));
            said
        });
        assert!(said[0] == said[1], "seed {seed}");
        let begun = said[0].iter().position(|y| *y != 0.0).unwrap();
        let last = said[0].iter().rposition(|y| *y != 0.0).unwrap();
        let lasted = (last - begun) as f64 / f64::from(rate);
        assert!((5_600..5_800).contains(&begun) && lasted < longest + 0.02, "{begun}, {lasted}");
        lasted < longest - 0.1
    });
    assert!(ended);
}

#[test]
fn voices_are_of_their_kinds() {
    let (filter, generator) = (model(1, 3), generator());
    let options = AnswerOptions::of(&generator);
    let refused = |voice: Voice<'_>| Session::open(voice, ends(16_000, 1), 1.0).err().unwrap().to_string();
    assert!(refused(Voice::Filter(&generator)).contains("expected a filter"));
    assert!(refused(Voice::Answer(&filter, options)).contains("expected a generator of sound"));
    for (wrong, what) in [
        (AnswerOptions { above_db: 3.0, ..options }, "above: expected -100 to 0, got 3"),
        (AnswerOptions { pause_s: f64::NAN, ..options }, "pause: expected 0.02 to 60"),
        (AnswerOptions { longest_s: 0.0, ..options }, "longest: expected 0.1 to 3600"),
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
