//! Examples: the same again, as loud and as noisy as drawn, never beyond full scale.

use super::*;

const RATE: u32 = 16000;

/// Clips of a tone each that swells and fades, two sources.
fn speech() -> Arc<Corpus> {
    let clip = |i: usize| {
        let len = 9000 + 4000 * i;
        let tone = |t: usize| {
            let swell = (std::f32::consts::PI * t as f32 / len as f32).sin();
            0.2 * swell * (t as f32 * 0.02 * (i + 1) as f32).sin()
        };
        (["ada", "bob"][i % 2].to_string(), (0..len).map(tone).collect::<Vec<f32>>())
    };
    Arc::new(Corpus::from_clips((0..6).map(clip)).unwrap())
}

fn noise() -> Option<Arc<Corpus>> {
    let clip = |i: u64| {
        let mut dice = Dice::new(9, i);
        (format!("n{i}"), (0..3000 + 20_000 * i).map(|_| 0.01 * dice.normal()).collect())
    };
    Some(Arc::new(Corpus::from_clips((0..4).map(clip)).unwrap()))
}

fn mixer(spec: MixSpec, seed: u64) -> Mixer {
    Mixer::new(&MixSpec { seconds: 1.0, ..spec }, RATE, seed, speech(), noise()).unwrap()
}

fn everything() -> MixSpec {
    let room = MixSpec { reverb: 1.0, noise_reverb: 1.0, ..MixSpec::plain() };
    MixSpec { tone: 1.0, band_limit: 1.0, second_noise: 1.0, synthetic: 0.4, babble: 0.4, clip: 1.0, ..room }
}

#[test]
fn an_example_is_a_function_of_seed_and_index() {
    for spec in [MixSpec::default(), MixSpec::plain(), everything()] {
        let (mut one, mut other) = (mixer(spec.clone(), 5), mixer(spec.clone(), 5));
        let forward: Vec<Example> = (0..12).map(|i| one.example(i)).collect();
        for i in (0..12).rev() {
            assert_eq!(other.example(i), forward[i as usize], "example {i}");
        }
        assert_eq!(one.clone().example(3), forward[3]);
        assert_ne!(mixer(spec, 6).example(3), forward[3]);
        assert_ne!(forward[3].noisy, forward[4].noisy);
    }
}

#[test]
fn examples_stay_within_full_scale() {
    for spec in [MixSpec::default(), everything(), MixSpec { level_db: [0.0, 0.0], ..MixSpec::default() }] {
        let mut mixer = mixer(spec, 1);
        for i in 0..60 {
            let example = mixer.example(i);
            assert_eq!((example.noisy.len(), example.clean.len()), (16000, 16000));
            let fine = |x: &f32| x.is_finite() && x.abs() <= 1.0;
            assert!(example.noisy.iter().chain(&example.clean).all(fine), "example {i}");
        }
    }
}

#[test]
fn the_snr_is_what_was_drawn_and_uniform() {
    let mut mixer = mixer(MixSpec::plain(), 2);
    let n = 300;
    let mut drawn = Vec::new();
    for i in 0..n {
        let Example { noisy, clean, snr_db } = mixer.example(i);
        let off: Vec<f32> = noisy.iter().zip(&clean).map(|(x, y)| x - y).collect();
        let got = 10.0 * (active_power(&clean, RATE as f32) / power(&off)).log10();
        let snr_db = f64::from(snr_db.unwrap());
        assert!((got - snr_db).abs() < 0.05, "example {i}: {got} dB for {snr_db}");
        drawn.push(snr_db);
    }
    // Uniform in −8 … 25: mean 8.5, deviation 33/√12; its standard error over 300 is 0.55.
    let mean = drawn.iter().sum::<f64>() / n as f64;
    let spread = (drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    assert!((mean - 8.5).abs() < 1.7 && (spread - 9.53).abs() < 1.0, "mean {mean}, deviation {spread}");
    assert!(drawn.iter().all(|x| (-8.0..25.0).contains(x)));
}

#[test]
fn levels_are_drawn_or_held_by_the_peak() {
    let mut mixer = mixer(MixSpec::plain(), 3);
    let (mut least, mut most) = (0f64, -100f64);
    for i in 0..200 {
        let example = mixer.example(i);
        let rms = 10.0 * power(&example.noisy).log10();
        assert!((-45.1..-4.9).contains(&rms), "example {i}: {rms} dBFS");
        (least, most) = (least.min(rms), most.max(rms));
    }
    assert!(least < -43.0 && most > -15.0, "{least} to {most} dBFS");
}

#[test]
fn chances_happen_as_often_as_asked() {
    let count = |spec: MixSpec, test: &dyn Fn(&Example) -> bool| {
        let mut mixer = mixer(spec, 4);
        (0..200).filter(|i| test(&mixer.example(*i))).count()
    };
    let silent = |example: &Example| example.clean.iter().all(|y| *y == 0.0) && power(&example.noisy) > 0.0;
    let bare = |example: &Example| example.noisy == example.clean && example.snr_db.is_none();
    let hushed = count(MixSpec { no_speech: 0.2, ..MixSpec::plain() }, &silent);
    assert!((20..=60).contains(&hushed), "{hushed} without speech");
    let alone = count(MixSpec { no_noise: 0.2, ..MixSpec::plain() }, &bare);
    assert!((20..=60).contains(&alone), "{alone} without noise");
    assert_eq!(count(MixSpec::plain(), &|e| silent(e) || bare(e)), 0);
}

#[test]
fn filters_and_rooms_leave_the_clean_sound_in_step() {
    // Without noise, what differs between noisy and clean is the late reverberation alone.
    let only = MixSpec { no_noise: 1.0, ..MixSpec::plain() };
    let mut filtered = mixer(MixSpec { tone: 1.0, band_limit: 1.0, ..only.clone() }, 7);
    let mut dry = mixer(MixSpec { reverb: 1.0, early: 1.0, ..only.clone() }, 7);
    let mut roomy = mixer(MixSpec { reverb: 1.0, ..only }, 7);
    for i in 0..10 {
        let example = filtered.example(i);
        assert_eq!(example.noisy, example.clean);
        let off = |e: &Example| {
            let off: Vec<f32> = e.noisy.iter().zip(&e.clean).map(|(x, y)| x - y).collect();
            power(&off) / power(&e.noisy)
        };
        assert!(off(&dry.example(i)) < 1e-10);
        let late = off(&roomy.example(i));
        assert!((1e-8..1.0).contains(&late), "late part {late}");
    }
}

#[test]
fn silent_clips_make_finite_examples() {
    let silent = || Arc::new(Corpus::from_clips([("s".to_string(), vec![0.0; 100])]).unwrap());
    let spec = MixSpec { seconds: 0.2, synthetic: 0.0, babble: 0.0, ..everything() };
    let mut mixer = Mixer::new(&spec, RATE, 0, silent(), Some(silent())).unwrap();
    assert!((0..5).all(|i| mixer.example(i).noisy.iter().all(|x| *x == 0.0)));
    let mut mixer = Mixer::new(&spec, RATE, 0, silent(), noise()).unwrap();
    let example = mixer.example(0);
    assert!(example.snr_db.is_none() && power(&example.noisy) > 0.0);
    assert!(example.clean.iter().all(|y| *y == 0.0));
}

#[test]
fn recipes_are_checked() {
    let parse = |text: &str| toml::from_str::<MixSpec>(text);
    assert_eq!(parse("").unwrap(), MixSpec::default());
    assert!(parse("reverbs = 0.1").unwrap_err().to_string().contains("reverbs"));
    for text in [
        "seconds = 0.0",
        "seconds = nan",
        "snr_db = [5.0, 1.0]",
        "level_db = [-20.0, 3.0]",
        "t60 = [0.0, 0.5]",
        "reverb = 1.5",
        "tone = nan",
        "pause = -1.0",
    ] {
        assert!(Mixer::new(&parse(text).unwrap(), RATE, 0, speech(), None).is_err(), "{text}");
    }
    assert!(Mixer::new(&MixSpec::default(), 8, 0, speech(), None).is_err());
}

#[test]
fn a_late_example_is_quiet_and_then_the_one_that_it_would_have_been() {
    let (mut late, mut plain) =
        (mixer(MixSpec { late: 1.0, ..MixSpec::plain() }, 3), mixer(MixSpec::plain(), 3));
    let (mut silent, mut hissing) = (0, 0);
    for i in 0..40 {
        let (late, plain) = (late.example(i), plain.example(i));
        let count = late.noisy.iter().zip(&plain.noisy).rposition(|(a, b)| a != b).map_or(0, |at| at + 1);
        assert!((1600..=12_000).contains(&count), "example {i}: {count}");
        assert_eq!(late.clean[count..], plain.clean[count..]);
        assert!(late.clean[..count].iter().all(|x| *x == 0.0));
        let level = 10.0 * power(&late.noisy[..count]).log10();
        if level == f64::NEG_INFINITY {
            silent += 1
        } else {
            hissing += 1
        }
        assert!(level < -59.0, "example {i}: {level} dB");
    }
    assert!(silent > 8 && hissing > 8, "{silent} silent, {hissing} hissing");
}
