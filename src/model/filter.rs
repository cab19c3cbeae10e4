//! A filter: waveform in, waveform out, by a mask on a learned basis (as Conv-TasNet, arXiv 1809.07454, with a causal
//! backbone of state-space blocks).
//!
//! ```text
//!          ┌─ last `window` samples ─► encoder ─► backbone ─► norm ─► mask ─┐ act
//! samples ─┤                                                                ×─► decoder ─► overlap-add ─► samples
//!          └─ `basis_window` samples, `lookahead` older ─► basis E ─────────┘
//! ```
//!
//! Every `hop` samples make one row. With w = `basis_window` and no lookahead, row j's basis sees the samples
//! `[(j+1)·hop − w, (j+1)·hop)` and the overlap-add lays what the decoder makes of it over the outputs
//! `[(j+1)·hop, (j+1)·hop + w)`: output n answers input `n − w`. A lookahead shows the basis older samples and so adds to that:
//! `latency = basis_window + lookahead`, exactly. The encoder sees everything up to the present.
//!
//! **At the start of training** (`fourier`): E = F·diag(h), with F the orthogonal real Fourier transform of w samples and h the
//! square root of the periodic Hann window (all ones where w = `hop`); the decoder is `diag(h)·Fᵀ·2·hop/w`. As `Σ_k h²(t + k·hop) =
//! w/(2·hop)`, a mask of 1 hands the input through, `latency` samples late, and the mask head begins near 1. The encoder begins as
//! a bank of windowed cosines and sines from 0 to half the sampling rate.
//!
//! **Taps.** With more than one tap, coefficients of older rows have masks of their own, and the decoder gets the sum ("Deep
//! Filtering", arXiv 1904.08369, §2): a filter along time in every band, finer in frequency than the basis. With `quadrature`
//! a second basis, begun a quarter turn back, makes each mask complex. All masks but the first begin near 0.
//!
//! Several channels lie side by side in a sample row; each has its own w rows of the basis at the start.

use std::f64::consts::PI;

use super::backbone::backbone;
use super::config::{FilterConfig, Mask};
use crate::plan::{Act, Init, Plan, PlanBuilder, View, Weights};
use crate::{Error, Result};

/// The filter's plan.
pub fn plan(config: &FilterConfig) -> Result<Plan> {
    let Some(outermost) = config.tiers.first() else {
        return Err(Error::input("model config: tiers", "at least one", "none"));
    };
    let (hop, channels, window) = (config.hop, config.channels, config.basis_window);
    let mut b = PlanBuilder::new();
    let x = b.samples(channels);
    // One frame op serves both branches: the newest `window` samples, and those `lookahead` back.
    let seen = config.window.max(window + config.lookahead);
    let frame = b.frame("frame", x, hop, seen)?;

    let newest = b.columns(frame, (seen - config.window) * channels, config.window * channels)?;
    let features = config.features.unwrap_or(outermost.d_model);
    let mut y = b.linear("encoder", newest, features, true, config.features_act)?;
    if config.features.is_some() {
        y = b.linear("project", y, outermost.d_model, true, Act::None)?;
    }
    let y = backbone(&mut b, "", y, &config.tiers, Some(outermost.norm))?;
    let offset = (seen - config.lookahead - window) * channels;
    let older = b.columns(frame, offset, window * channels)?;
    let (len, bases) = (config.basis_len(), if config.quadrature { 2 } else { 1 });
    let masks = config.taps.len() * bases;
    let (act, start) = mask_start(config.mask, masks, len);
    let weight = Init::Uniform(0.1 / (y.width as f32).sqrt());
    let mask = b.linear_with("mask", y, masks * len, Some(start), weight, Act::None)?;
    let mut sum: Option<View> = None;
    for base in 0..bases {
        let named = |what: &str| if base == 0 { what.to_string() } else { format!("quadrature.{what}") };
        let coefficients = b.linear(&named("basis"), older, len, false, Act::None)?;
        for (i, delay) in config.taps.iter().enumerate() {
            let named = |what: &str| if i == 0 { named(what) } else { format!("{}.{i}", named(what)) };
            let part = b.columns(mask, (i * bases + base) * len, len)?;
            let held =
                if *delay == 0 { coefficients } else { b.delay(&named("held"), coefficients, *delay)? };
            let masked = b.gate(&named("masked"), held, part, act)?;
            sum = Some(match sum {
                None => masked,
                Some(sum) => b.add(&named("sum"), sum, masked)?,
            });
        }
    }
    let Some(masked) = sum else { return Err(Error::input("model config: taps", "at least one", "none")) };
    let z = b.linear("decoder", masked, window * channels, false, Act::None)?;
    let out = b.overlap_add("output", z, hop, 1, window / hop)?;
    if config.fourier {
        let (basis, decoder) = fourier_basis(window, hop, channels);
        b.init("encoder.weight", Init::Values(filter_bank(features, config.window, channels).into()))?;
        if config.quadrature {
            b.init("quadrature.basis.weight", Init::Values(quadrature(&basis, window).into()))?;
        }
        b.init("basis.weight", Init::Values(basis.into()))?;
        b.init("decoder.weight", Init::Values(decoder.into()))?;
    }
    b.build(out)
}

/// The masks' activation, and the biases that begin the first of `masks` near 1 and the others near 0.
fn mask_start(mask: Mask, masks: usize, len: usize) -> (Act, Init) {
    let (act, open, shut) = match mask {
        Mask::Sigmoid => (Act::Sigmoid, 3.0, -3.0),
        Mask::Tanh => (Act::Tanh, 2.0, 0.0),
        Mask::None => (Act::None, 1.0, 0.0),
    };
    let starts = (0..masks * len).map(|i| if i < len { open } else { shut });
    (act, Init::Values(starts.collect::<Vec<f32>>().into()))
}

/// Lets `share` of the input's basis through whatever the masks say, and `1 − share` of what they say: for the newest tap
/// m ← (1 − share)·m + share, for the others m ← (1 − share)·m. A model that has learnt to take away what it is unsure of takes
/// too much from voices and noises that it hasn't met; on those a little of the input is nearer to the clean sound.
///
/// The masks must be linear (`mask = "none"`), for then this is a change of the head's weights and costs nothing.
pub fn keep_dry(config: &FilterConfig, plan: &Plan, weights: &mut Weights, share: f32) -> Result<()> {
    if config.mask != Mask::None || !(0.0..1.0).contains(&share) {
        let got = format!("{share} with mask {:?}", config.mask);
        return Err(Error::input("dry share of a filter", "0 to less than 1, with mask = \"none\"", got));
    }
    for (name, open) in [("mask.weight", 0), ("mask.bias", config.basis_len())] {
        let values = plan.find_param(name).and_then(|id| weights.tensors_mut().get_mut(id.0));
        let values = values.ok_or_else(|| Error::input("dry share of a filter", name, "no such tensor"))?;
        for (i, value) in values.iter_mut().enumerate() {
            *value = (1.0 - share) * *value + if i < open { share } else { 0.0 };
        }
    }
    Ok(())
}

/// A basis a quarter turn back: the row of each cosine becomes minus that of its sine, that of the sine the cosine's; rows
/// without a partner become zeros. A mask m on the basis and m′ on this one turn and scale each pair as m − i·m′ would.
fn quadrature(basis: &[f32], window: usize) -> Vec<f32> {
    let size = (basis.len() as f64).sqrt() as usize;
    let row = |i: usize| &basis[i * size..(i + 1) * size];
    let turned = |i: usize| {
        let (k, paired) = (i % window, window.saturating_sub(1) / 2 * 2);
        match k % 2 {
            1 if k <= paired => row(i + 1).iter().map(|x| -x).collect::<Vec<_>>(),
            0 if k > 0 && k <= paired => row(i - 1).to_vec(),
            _ => vec![0.0; size],
        }
    };
    (0..size).flat_map(turned).collect()
}

/// The periodic Hann window of `len` samples, at `t`.
fn hann(t: usize, len: usize) -> f64 {
    (PI * t as f64 / len as f64).sin().powi(2)
}

/// Row `k` of the orthogonal real Fourier transform of `len` samples, at `t`: 1/√len, then cosines and sines in pairs, then for
/// even `len` the alternating row.
fn fourier_row(k: usize, t: usize, len: usize) -> f64 {
    let (cycles, n) = (k.div_ceil(2), len as f64);
    // Whole turns are taken out first, so that the phase keeps its digits.
    let phase = 2.0 * PI * ((cycles * t) % len) as f64 / n;
    if k == 0 || 2 * cycles == len {
        phase.cos() / n.sqrt()
    } else if k % 2 == 1 {
        phase.cos() * (2.0 / n).sqrt()
    } else {
        phase.sin() * (2.0 / n).sqrt()
    }
}

/// The basis `[channels·w, w·channels]` and the decoder `[w·channels, channels·w]` of perfect reconstruction.
fn fourier_basis(window: usize, hop: usize, channels: usize) -> (Vec<f32>, Vec<f32>) {
    let size = window * channels;
    let (mut basis, mut decoder) = (vec![0.0; size * size], vec![0.0; size * size]);
    let (taper, scale): (Box<dyn Fn(usize) -> f64>, f64) = match window == hop {
        true => (Box::new(|_| 1.0), 1.0),
        false => (Box::new(|t| hann(t, window).sqrt()), 2.0 * hop as f64 / window as f64),
    };
    for k in 0..window {
        for t in 0..window {
            let value = fourier_row(k, t, window) * taper(t);
            for c in 0..channels {
                let (row, column) = (c * window + k, t * channels + c);
                basis[row * size + column] = value as f32;
                decoder[column * size + row] = (value * scale) as f32;
            }
        }
    }
    (basis, decoder)
}

/// `rows` windowed cosines and sines `[rows, window·channels]`, evenly spaced in frequency, for the channels in turn.
fn filter_bank(rows: usize, window: usize, channels: usize) -> Vec<f32> {
    let mut bank = vec![0.0; rows * window * channels];
    let pairs = rows.div_ceil(channels).div_ceil(2) as f64;
    for row in 0..rows {
        let (channel, k) = (row % channels, row / channels);
        let turn = PI * ((k / 2) as f64 + 0.5) / pairs;
        let quarter = if k.is_multiple_of(2) { PI / 2.0 } else { 0.0 };
        for t in 0..window {
            let value = (turn * t as f64 + quarter).sin() * hann(t, window) * (4.0 / window as f64).sqrt();
            bank[(row * window + t) * channels + channel] = value as f32;
        }
    }
    bank
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::reference::Reference;
    use crate::exec::{Limits, Rows};
    use crate::model::Config;
    use crate::plan::OpKind;

    fn config(rest: &str) -> FilterConfig {
        let text = format!(
            r#"{{"kind": "filter", "rate": 16000, {rest}
                "tiers": [{{"d_model": 10, "blocks": 1, "mixer": {{"kind": "s4d", "d_state": 2}}}}]}}"#
        );
        match serde_json::from_str(&text).unwrap() {
            Config::Filter(filter) => filter,
            other => panic!("{other:?}"),
        }
    }

    fn tensor<'w>(plan: &Plan, weights: &'w Weights, name: &str) -> &'w [f32] {
        weights.get(plan.find_param(name).unwrap())
    }

    /// The basis branch with a mask of 1, by the definitions of frame, linear and overlap.
    fn pass_through(config: &FilterConfig, input: &[f32]) -> Vec<f64> {
        let plan = plan(config).unwrap();
        let weights = Weights::random(&plan, 3);
        let (basis, decoder) =
            (tensor(&plan, &weights, "basis.weight"), tensor(&plan, &weights, "decoder.weight"));
        let (hop, channels) = (config.hop, config.channels);
        let size = config.basis_window * channels;
        let product = |m: &[f32], x: &[f64]| -> Vec<f64> {
            m.chunks(size).map(|row| row.iter().zip(x).map(|(a, b)| f64::from(*a) * b).sum()).collect()
        };
        let frames = input.len() / channels;
        let mut out = vec![0.0; input.len() + config.latency() * channels];
        for j in 0..frames / hop {
            let first = ((j + 1) * hop) as isize - (config.basis_window + config.lookahead) as isize;
            let at = |i: usize| {
                let index = first * channels as isize + i as isize;
                usize::try_from(index).map_or(0.0, |index| f64::from(input[index]))
            };
            let row: Vec<f64> = (0..size).map(at).collect();
            let z = product(decoder, &product(basis, &row));
            for (i, value) in z.iter().enumerate() {
                out[(j + 1) * hop * channels + i] += value;
            }
        }
        out
    }

    #[test]
    fn at_the_start_a_mask_of_one_hands_the_input_through_at_the_latency() {
        for rest in [
            r#""hop": 4, "window": 24, "basis_window": 16,"#,
            r#""hop": 4, "window": 4, "basis_window": 12, "lookahead": 5,"#,
            r#""hop": 5, "window": 7, "basis_window": 5,"#,
            r#""hop": 3, "window": 8, "basis_window": 9, "channels": 2,"#,
            r#""hop": 3, "window": 8, "basis_window": 9, "taps": [0, 2, 1], "quadrature": true, "lookahead": 1,"#,
        ] {
            let config = config(rest);
            let input: Vec<f32> = (0..240).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
            let out = pass_through(&config, &input);
            let lag = config.latency() * config.channels;
            let last = (input.len() / config.channels / config.hop) * config.hop * config.channels;
            for n in lag..last {
                let want = f64::from(input[n - lag]);
                assert!((out[n] - want).abs() < 1e-6, "{rest} {n}: {} and {want}", out[n]);
            }
        }
    }

    #[test]
    fn the_transform_is_orthogonal_for_even_and_odd_lengths() {
        for len in [1, 2, 7, 12] {
            for i in 0..len {
                for j in 0..len {
                    let dot: f64 = (0..len).map(|t| fourier_row(i, t, len) * fourier_row(j, t, len)).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{len} {i} {j}: {dot}");
                }
            }
        }
    }

    #[test]
    fn a_mask_on_the_quadrature_turns_a_tone_by_a_quarter() {
        let len = 12;
        let (basis, _) = fourier_basis(len, len, 1);
        let turned = quadrature(&basis, len);
        for k in 1..=5usize {
            let tone = |shift: f64| -> Vec<f64> {
                (0..len).map(|t| (2.0 * PI * (k * t) as f64 / len as f64 + shift).cos()).collect()
            };
            let product = |m: &[f32], x: &[f64]| -> Vec<f64> {
                m.chunks(len).map(|row| row.iter().zip(x).map(|(a, b)| f64::from(*a) * b).sum()).collect()
            };
            let (got, want) = (product(&turned, &tone(0.3)), product(&basis, &tone(0.3 - PI / 2.0)));
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{k}: {got:?} {want:?}");
        }
    }

    /// What the reference makes of `input`.
    fn run(plan: &Plan, weights: &Weights, input: &[f32]) -> Vec<f64> {
        let limits = Limits { max_rows: input.len(), max_streams: 1 };
        Reference::<f64>::open(plan, weights, limits).advance_one(0, input.len(), Rows::Samples(input))
    }

    #[test]
    fn a_dry_share_is_that_share_of_the_input() -> Result<()> {
        let config = config(
            r#""hop": 4, "window": 16, "basis_window": 8, "mask": "none", "taps": [0, 2], "quadrature": true,"#,
        );
        let plan = plan(&config)?;
        let mut weights = Weights::random(&plan, 3);
        // A head that says something, and a basis that hands the input through.
        let head = plan.find_param("mask.weight").unwrap();
        weights.tensors_mut()[head.0].iter_mut().enumerate().for_each(|(i, w)| *w = 0.1 * (i as f32).sin());
        let input: Vec<f32> = (0..200).map(|i| (0.3 * i as f32).sin()).collect();
        let wet = run(&plan, &weights, &input);
        keep_dry(&config, &plan, &mut weights, 0.25)?;
        let both = run(&plan, &weights, &input);
        let late = config.latency();
        let off = (late..200).map(|i| (0.75 * wet[i] + 0.25 * f64::from(input[i - late]) - both[i]).abs());
        assert!(off.fold(0.0, f64::max) < 1e-5 && wet != both);
        let tanh = FilterConfig { mask: Mask::Tanh, ..config };
        assert!(keep_dry(&tanh, &plan, &mut weights, 0.1).is_err());
        Ok(())
    }

    #[test]
    fn the_mask_begins_near_one() {
        for (mask, value) in [("sigmoid", 1.0 / (1.0 + (-3f32).exp())), ("tanh", 2f32.tanh()), ("none", 1.0)]
        {
            let text = format!(r#""hop": 4, "window": 8, "basis_window": 8, "mask": "{mask}","#);
            let plan = plan(&config(&text)).unwrap();
            let weights = Weights::random(&plan, 1);
            let bias = tensor(&plan, &weights, "mask.bias")[0];
            let gate = plan.ops.iter().find_map(|op| match op.kind {
                OpKind::Gate { act } if op.name == "masked" => Some(act),
                _ => None,
            });
            let got = match gate.unwrap() {
                Act::Sigmoid => 1.0 / (1.0 + (-bias).exp()),
                Act::Tanh => bias.tanh(),
                _ => bias,
            };
            assert!(got == value && value > 0.94, "{mask}: {got}");
        }
    }

    #[test]
    fn a_lookahead_shows_the_basis_older_samples_and_the_encoder_the_newest() {
        let plan = plan(&config(r#""hop": 4, "window": 10, "basis_window": 8, "lookahead": 6,"#)).unwrap();
        let view = |name: &str| plan.ops.iter().find(|op| op.name == name).unwrap().inputs[0];
        assert_eq!((view("basis").offset, view("basis").width), (0, 8));
        assert_eq!((view("encoder").offset, view("encoder").width), (4, 10));
    }

    #[test]
    fn features_add_a_projection_and_the_bank_covers_every_row() {
        let text = r#""hop": 4, "window": 12, "basis_window": 8, "features": 17, "features_act": "relu","#;
        let plan = plan(&config(text)).unwrap();
        let weights = Weights::random(&plan, 1);
        for (row, filter) in tensor(&plan, &weights, "encoder.weight").chunks(12).enumerate() {
            let energy: f32 = filter.iter().map(|x| x * x).sum();
            assert!((0.05..4.0).contains(&energy), "row {row}: {energy}");
        }
        assert_eq!(plan.param(plan.find_param("project.weight").unwrap()).shape, [10, 17]);
    }
}
