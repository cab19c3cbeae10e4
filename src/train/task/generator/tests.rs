//! Windows: the same whoever makes them, and without gaps. What is learned from them: its gradient, and that it teaches.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::audio::mu_law::{LEVELS, SILENCE, decode, encode};
use crate::exec::candle::{CandleModel, Dropout};
use crate::model::Config;
use crate::train::adamw::{AdamW, AdamWSpec, Group};
use crate::train::ahead::{Ahead, Share};
use crate::train::batch::{Graph, Step, Worker};
use crate::train::begins::{Begin, Begins};
use crate::train::examples::{Examples, Maker, Pair};
use crate::train::random::Dice;

/// A tone that never comes back to where it was, so that a stretch of it says where it is from.
fn chirp(len: usize, class: u32) -> Vec<f32> {
    let at = |t: usize| 0.05 * t as f32 + 2e-6 * (t * t) as f32;
    (0..len).map(|t| 0.8 * (at(t) + class as f32).sin()).collect()
}

/// Clips of class 0 and 1, of these lengths.
fn clips(lengths: &[usize], exact: bool) -> Clips {
    let clip = |(i, len): (usize, &usize)| Clip::new(chirp(*len, i as u32 % 2), i as u32 % 2, exact);
    Clips::new(8000, lengths.iter().enumerate().map(clip).collect()).unwrap()
}

fn spec(windows: u64) -> ClipsSpec {
    ClipsSpec { seconds: 0.05, windows, ..ClipsSpec::default() }
}

fn tokens(samples: &[f32]) -> Vec<u32> {
    samples.iter().map(|x| encode(*x)).collect()
}

#[test]
fn an_example_is_a_function_of_its_index_whoever_makes_it() -> Result<()> {
    for spec in [spec(3), ClipsSpec { speed: [0.9, 1.2], gain_db: [-9.0, 0.0], ..spec(3) }] {
        let mut windows = Windows::new(&spec, 7, 6, clips(&[9000, 300, 5000], spec.varies()), None);
        let all: Vec<Pair<u32>> = (0..60).map(|i| windows.make(i)).collect();
        let mut other = windows.clone();
        assert!((0..60).rev().all(|i| other.make(i) == all[i as usize]));
        assert!(Windows::new(&spec, 8, 6, clips(&[9000, 300, 5000], spec.varies()), None).make(0) != all[0]);
        // Made ahead by threads, for the second of two processes that goes on at step 4.
        let share = Share { step: 4, batch: 6, from: 3, count: 3 };
        let mut ahead = Ahead::start(vec![windows.clone(); 3], share, 5, &Device::Cpu);
        for step in 4..8 {
            let got = ahead.take()?;
            let own = &all[6 * step + 3..6 * step + 6];
            assert!(got.heard() == own.iter().flat_map(|e| e.heard.clone()).collect::<Vec<_>>());
            assert!(got.wanted() == own.iter().flat_map(|e| e.wanted.clone()).collect::<Vec<_>>());
        }
    }
    Ok(())
}

#[test]
fn clips_without_a_class_have_their_share_and_classes_are_hidden_in_theirs() {
    // Class 2 has no name; its clip is as long as all others together.
    let clip = |(i, len): (u32, usize)| Clip::new(chirp(len, i), i, false);
    let all = || Clips::new(8000, [(0, 3000), (1, 3000), (2, 6000)].map(clip).into()).unwrap();
    let share = |nameless, forget, clips: Clips| {
        let spec = ClipsSpec { nameless, forget, ..spec(1) };
        spec.check(8000, true).unwrap();
        let mut windows = Windows::new(&spec, 4, 50, clips, Some(2));
        let classes: Vec<u32> = (0..2000).map(|i| windows.make(i).heard[0] / LEVELS as u32).collect();
        [0, 1, 2].map(|class| classes.iter().filter(|of| **of == class).count() as f64 / 2000.0)
    };
    let near = |found: [f64; 3], expected: [f64; 3]| {
        assert!(
            found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.04),
            "{found:?}, not {expected:?}"
        );
    };
    near(share(None, 0.0, all()), [0.25, 0.25, 0.5]);
    near(share(Some(0.2), 0.0, all()), [0.4, 0.4, 0.2]);
    near(share(Some(0.0), 0.0, all()), [0.5, 0.5, 0.0]);
    near(share(Some(0.2), 0.5, all()), [0.2, 0.2, 0.6]);
    // Where there are none, others take their share.
    near(share(Some(0.2), 0.0, Clips::new(8000, [(0, 3000)].map(clip).into()).unwrap()), [1.0, 0.0, 0.0]);
    near(share(Some(0.2), 0.0, Clips::new(8000, [(2, 3000)].map(clip).into()).unwrap()), [0.0, 0.0, 1.0]);
    let refused = |spec: ClipsSpec, nameless| spec.check(8000, nameless).is_err();
    assert!(
        refused(ClipsSpec { forget: 0.1, ..spec(1) }, false)
            && !refused(ClipsSpec { forget: 0.1, ..spec(1) }, true)
    );
    assert!(refused(ClipsSpec { nameless: Some(1.1), ..spec(1) }, true));
}

#[test]
fn windows_of_a_visit_follow_each_other_in_the_clip() {
    let (lengths, batch) = ([9000, 5000], 4);
    let all = [tokens(&chirp(9000, 0)), tokens(&chirp(5000, 1))];
    let mut windows = Windows::new(&spec(3), 7, batch as usize, clips(&lengths, false), None);
    let mut begun = Vec::new();
    for place in 0..40 {
        let (visit, place) = (place / batch, place % batch);
        let index = |window: u64| (3 * visit + window) * batch + place;
        let parts: Vec<Pair<u32>> = (0..3).map(|window| windows.make(index(window))).collect();
        let begins = (0..3).map(|window| windows.course().of(index(window)));
        assert!(begins.eq([Begin::Zeros, Begin::Carried, Begin::Carried]));
        let class = parts[0].heard[0] / LEVELS as u32;
        let heard: Vec<u32> = parts.iter().flat_map(|p| p.heard.clone()).collect();
        let wanted: Vec<u32> = parts.iter().flat_map(|p| p.wanted.clone()).collect();
        assert_eq!((heard.len(), wanted.len()), (1200, 1200));
        assert!(heard.iter().all(|token| token / LEVELS as u32 == class), "one class a visit");
        let of = &all[class as usize];
        let from = (0..=of.len() - 1200).find(|from| of[*from..from + 1200] == wanted).unwrap();
        let before = if from == 0 { SILENCE } else { of[from - 1] };
        assert_eq!(heard[0] % 256, before);
        assert!(heard.iter().skip(1).map(|token| token % 256).eq(wanted[..1199].iter().copied()));
        begun.push((class, from));
    }
    begun.sort_unstable();
    begun.dedup();
    assert!(begun.len() > 35 && begun.iter().any(|(class, _)| *class == 1), "{begun:?}");
}

#[test]
fn a_short_clip_begins_at_its_beginning_and_silence_follows() {
    let mut windows = Windows::new(&spec(2), 7, 1, clips(&[500], false), None);
    let [first, second] = [0, 1].map(|i| windows.make(i));
    assert_eq!((first.heard[0], first.wanted), (SILENCE, tokens(&chirp(500, 0)[..400])));
    let rest = [tokens(&chirp(500, 0)[400..]), vec![SILENCE; 300]].concat();
    assert_eq!(second.wanted, rest);
}

#[test]
fn every_sample_is_heard_about_equally_often() {
    // A visit hears 800 samples: one clip of 8,000 is ten visits, two shorter ones are one each.
    let lengths = [8000, 700, 200];
    let clips = lengths.iter().zip(0..).map(|(len, class)| Clip::new(vec![0.1; *len], class, false));
    let clips = Clips::new(8000, clips.collect()).unwrap();
    let mut windows = Windows::new(&spec(2), 3, 1, clips, None);
    let mut drawn = [0usize; 3];
    (0..4000).for_each(|visit| drawn[windows.make(2 * visit).heard[0] as usize / LEVELS] += 1);
    let expected = [10, 1, 1].map(|weight| 4000 * weight / 12);
    assert!(drawn.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 60), "{drawn:?}");
}

#[test]
fn gain_and_speed_change_what_is_heard_and_leave_no_gap() {
    let clip = chirp(4000, 0);
    let gains = ClipsSpec { gain_db: [-12.0, -3.0], seconds: 0.5, ..spec(1) };
    let mut windows = Windows::new(&gains, 7, 8, clips(&[4000], true), None);
    let loudest = |e: &Pair<u32>| e.wanted.iter().fold(0f32, |most, t| most.max(decode(*t).abs()));
    let peaks: Vec<f32> = (0..60).map(|i| loudest(&windows.make(i))).collect();
    let (least, most) =
        (peaks.iter().copied().fold(9.0, f32::min), peaks.iter().copied().fold(0.0, f32::max));
    assert!(least < 0.24 && least > 0.19 && most > 0.52 && most < 0.58, "{least} {most}");
    // Of one speed: sample n is what stands at 1.25·n.
    let fast = ClipsSpec { speed: [1.25, 1.25], ..spec(4) };
    let mut windows = Windows::new(&fast, 7, 1, clips(&[2000], true), None);
    let parts: Vec<Pair<u32>> = (0..4).map(|i| windows.make(i)).collect();
    assert_eq!(parts[0].heard[0], SILENCE);
    for (a, b) in parts.iter().zip(&parts[1..]) {
        assert_eq!(a.wanted[399], b.heard[0], "a gap between windows");
    }
    for (n, token) in parts.iter().flat_map(|p| &p.wanted).enumerate().skip(20).take(1500) {
        let at = 1.25 * n as f32;
        let (i, share) = (at as usize, at.fract());
        let expected = clip[i] * (1.0 - share) + clip[i + 1] * share;
        assert!((decode(*token) - expected).abs() < 0.05, "{n}: {} for {expected}", decode(*token));
    }
}

#[test]
fn names_without_a_class_are_refused_before_they_are_read() {
    let config = r#"{"rate": 8000, "classes": ["zero", "one"], "tiers": []}"#;
    let config: GeneratorConfig = serde_json::from_str(config).unwrap();
    let files = ["zero-1.wav", "two-1.wav"].map(PathBuf::from);
    let message = Clips::read(&files, &config, false).unwrap_err().to_string();
    assert!(message.contains("begins with one of zero, one, got two-1"), "{message}");
    let files: Vec<PathBuf> = (0..10).map(|i| PathBuf::from(i.to_string())).collect();
    assert_eq!(spaced(&files, 4), [0, 2, 5, 7].map(|i: usize| files[i].clone()));
    assert_eq!(spaced(&files, 40), files);
}

/// Two classes, two tiers, both mixers.
fn model() -> Result<CandleModel> {
    let text = r#"{"kind": "generator", "rate": 8000, "classes": ["a", "b"], "tiers": [
        {"d_model": 8, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 2}, "feed_forward": 1},
        {"d_model": 8, "blocks": 1, "pool": 4, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    let plan = config.plan()?;
    CandleModel::new(&plan, &Weights::random(&plan, 3), DType::F32)
}

fn graph(model: &CandleModel, begins: &Begins, examples: &Examples<u32>, segment: usize) -> Result<Graph> {
    let dropout = Dropout { seed: 1, step: 0, first_stream: 0 };
    Step { model, begins, dropout, segment }.graph(&mut TokenJudge, examples, 0, 0)
}

#[test]
fn the_gradient_is_that_of_differences_whole_or_in_segments() -> Result<()> {
    let model = model()?;
    let mut windows =
        Windows::new(&ClipsSpec { seconds: 0.012, ..spec(1) }, 5, 3, clips(&[900, 800], false), None);
    let mut examples = Examples::with_capacity(3, windows.rows(), &Device::Cpu);
    (0..3).for_each(|i| examples.push(&windows.make(i)));
    let begins = Begins::new(windows.course(), 1);
    let sum = |model: &CandleModel| -> Result<f64> {
        let values = graph(model, &begins, &examples, 0)?.verdict.values()?;
        Ok(values.iter().map(|v| v.total).sum())
    };
    let flat = |segment| -> Result<Vec<f32>> {
        graph(&model, &begins, &examples, segment)?.flat.to_vec1().map_err(crate::exec::candle::train_error)
    };
    let (whole, parts) = (flat(0)?, flat(20)?);
    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let off: Vec<f32> = whole.iter().zip(&parts).map(|(a, b)| a - b).collect();
    assert!(length(&off) < 1e-4 * length(&whole), "{} of {}", length(&off), length(&whole));
    // Along the gradient, and along directions that have little to do with it.
    let mut dice = Dice::new(4, 0);
    for direction in 0..4 {
        let along: Vec<f32> = match direction {
            0 => whole.clone(),
            _ => whole.iter().map(|g| dice.normal() * g.abs()).collect(),
        };
        let step = 3e-3 / length(&along);
        let at = |by: f64| -> Result<f64> {
            let mut moved = model.clone();
            let weights = model.flat().to_vec1::<f32>().map_err(crate::exec::candle::train_error)?;
            let weights: Vec<f32> =
                weights.iter().zip(&along).map(|(w, d)| w + (by * f64::from(*d)) as f32).collect();
            let count = weights.len();
            let flat = Tensor::from_vec(weights, count, &Device::Cpu);
            moved.set_flat(flat.map_err(crate::exec::candle::train_error)?)?;
            sum(&moved)
        };
        let expected = (at(step)? - at(-step)?) / (2.0 * step);
        let found: f64 = whole.iter().zip(&along).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let scale = length(&along) * length(&whole);
        assert!((found - expected).abs() < 3e-3 * scale, "{direction}: {found} for {expected}, of {scale}");
    }
    Ok(())
}

#[test]
fn a_loss_is_the_mean_of_nats_and_validation_counts_its_bits() -> Result<()> {
    // One clip as one window: training's loss and validation's bits are of the same rows.
    let model = model()?;
    let mut windows = Windows::new(&ClipsSpec { seconds: 0.1, ..spec(1) }, 5, 1, clips(&[800], false), None);
    let mut examples = Examples::with_capacity(1, 800, &Device::Cpu);
    examples.push(&windows.make(0));
    let begins = Begins::new(windows.course(), 1);
    let values = graph(&model, &begins, &examples, 0)?.verdict.values()?;
    let (told, terms) = Generator::told(&values[0]);
    let unseen = clips(&[800], false);
    let bits = bits(model.plan(), &model.export()?, None, &unseen, 2)?;
    assert!((told - bits).abs() < 1e-4 && terms.is_none(), "{told} {bits}");
    assert!((6.0..10.0).contains(&bits), "{bits}");
    Ok(())
}

/// The model after so many steps on windows of these clips.
fn taught(clips: &Clips, spec: &ClipsSpec, steps: u64) -> Result<(Plan, Weights)> {
    let mut model = model()?;
    let (plan, mut weights) = (model.plan().clone(), model.export()?);
    let windows = Windows::new(spec, 5, 4, clips.clone(), None);
    let mut begins = Begins::new(windows.course(), 2);
    let worker = || Worker::<Generator> { maker: windows.clone(), judge: TokenJudge };
    let mut workers = vec![worker(), worker()];
    let groups = plan.params.iter().zip(weights.tensors()).map(|(p, w)| Group::new(&p.name, w));
    let mut optimiser = AdamW::new(&AdamWSpec { ema: 0.0, ..AdamWSpec::default() }, groups.collect())?;
    for step in 0..steps {
        let dropout = Dropout { seed: 1, step, first_stream: 0 };
        let now = Step { model: &model, begins: &begins, dropout, segment: 0 };
        let got = now.gradient(&mut workers, 4 * step, 0..2, 2)?;
        let grads: Vec<&[f32]> = model.layout().ranges().map(|range| &got.flat[range]).collect();
        let mut tensors: Vec<&mut [f32]> = weights.tensors_mut().iter_mut().map(Vec::as_mut_slice).collect();
        optimiser.step(1e-2, &mut tensors, &grads)?;
        model.load(&weights)?;
        begins.keep(0, got.ends, 1.0);
    }
    Ok((plan, weights))
}

#[test]
fn a_generator_learns_a_sound_that_repeats() -> Result<()> {
    let saw: Vec<f32> = (0..6000).map(|t| 0.8 * ((t % 25) as f32 / 12.0 - 1.0)).collect();
    let clips = Clips::new(8000, vec![Clip::new(saw, 1, false)])?;
    let heldout = clips.clone().first_seconds(0.1);
    let cost = |(plan, weights): (Plan, Weights)| bits(&plan, &weights, None, &heldout, 1);
    let spec = ClipsSpec { seconds: 0.016, ..spec(2) };
    let (before, after) = (cost(taught(&clips, &spec, 0)?)?, cost(taught(&clips, &spec, 120)?)?);
    assert!(before > 6.5 && after < 1.5, "{before} bits a sample, then {after}");
    Ok(())
}

#[test]
fn clips_that_cost_least_as_what_they_are_are_known() -> Result<()> {
    // Only its class tells which a clip will be.
    let clips = |classes: [u32; 2]| {
        let clip = |(level, class): (f32, u32)| Clip::new(vec![level; 128], class, false);
        Clips::new(8000, [0.5, -0.5].into_iter().zip(classes).map(clip).collect())
    };
    let (plan, weights) = taught(&clips([0, 1])?, &ClipsSpec { seconds: 0.016, ..spec(1) }, 80)?;
    let known = |weights: &Weights, classes| known(&plan, weights, None, (&clips(classes)?, 2), 2);
    let of = |classes| known(&weights, classes);
    assert_eq!((of([0, 1])?, of([1, 0])?, of([0, 0])?), (Some(1.0), Some(0.0), Some(0.5)));
    // A clip without a class is not asked about, and who doesn't hear the class knows none.
    assert_eq!((of([0, 2])?, of([2, 2])?), (Some(1.0), None));
    let mut deaf = weights.clone();
    let table = plan.find_param("class.weight").map_or(0, |id| id.0);
    deaf.tensors_mut()[table].fill(0.0);
    assert_eq!(known(&deaf, [0, 1])?, Some(0.0));
    Ok(())
}
