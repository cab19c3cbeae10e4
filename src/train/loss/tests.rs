//! The losses against an f64 version of their definitions, and their gradients against its finite differences.

use super::*;
use crate::train::random::Dice;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex64;

/// Low, so that short sounds have several stretches of the envelope term.
const RATE: u32 = 400;

/// The scaled STFT in f64.
fn spectrum(x: &[f64], n: usize, hop: usize) -> Vec<Complex64> {
    let plan = RealFftPlanner::<f64>::new().plan_fft_forward(n);
    let turn = std::f64::consts::TAU / n as f64;
    let window: Vec<f64> = (0..n).map(|j| 0.5 - 0.5 * (turn * j as f64).cos()).collect();
    let scale = 1.0 / window.iter().map(|w| w * w).sum::<f64>().sqrt();
    let (mut time, mut row, mut rows) = (plan.make_input_vec(), plan.make_output_vec(), Vec::new());
    for f in 0..=x.len() / hop {
        for (j, t) in time.iter_mut().enumerate() {
            let at = (f * hop + j).checked_sub(n / 2).and_then(|at| x.get(at));
            *t = window[j] * scale * at.copied().unwrap_or(0.0);
        }
        plan.process(&mut time, &mut row).unwrap();
        rows.extend_from_slice(&row);
    }
    rows
}

/// The envelope term as its page defines it, in f64, at [`RATE`].
fn envelope(x: &[Complex64], y: &[Complex64], n: usize, hop: usize, floor: f64) -> f64 {
    let (bins, e2) = (n / 2 + 1, floor * floor);
    let edge = |third: f64| (150.0 * 2f64.powf(third / 3.0) * n as f64 / f64::from(RATE)).round() as usize;
    let bands: Vec<_> = (0..15)
        .map(|j| (edge(f64::from(j) - 0.5), edge(f64::from(j) + 0.5)))
        .filter(|(low, high)| low < high && *high <= bins)
        .collect();
    let band = |z: &[Complex64], m: usize, (low, high): (usize, usize)| {
        (z[m * bins + low..m * bins + high].iter().map(|z| z.norm_sqr()).sum::<f64>() + e2).sqrt()
    };
    let frames = x.len() / bins;
    let stretch = (0.384 * f64::from(RATE) / hop as f64).round() as usize;
    let rows = |s: usize| s * (stretch / 2)..(s * (stretch / 2) + stretch).min(frames);
    let count = frames.saturating_sub(stretch / 2).max(1).div_ceil(stretch / 2);
    let power = |s: usize| bands.iter().flat_map(|b| rows(s).map(|m| band(y, m, *b).powi(2))).sum::<f64>();
    let loudest = (0..count).map(power).fold(0.0, f64::max);
    let least = (1e-4 * loudest).max(e2 * (2 * stretch * bands.len()) as f64);
    let (mut sum, mut terms) = (0.0, 0.0);
    for s in (0..count).filter(|s| power(*s) > least) {
        for b in &bands {
            let of = |z: &[Complex64]| {
                let row: Vec<f64> = rows(s).map(|m| band(z, m, *b)).collect();
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                row.into_iter().map(|r| r - mean).collect::<Vec<_>>()
            };
            let (u, v) = (of(x), of(y));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let floor = u.len() as f64 * e2;
            sum += 1.0 - dot(&u, &v) / ((dot(&u, &u) + floor) * (dot(&v, &v) + floor)).sqrt();
            terms += 1.0;
        }
    }
    if terms > 0.0 { sum / terms } else { 0.0 }
}

/// The total by the module's definitions, in f64.
fn by_definition(spec: &LossSpec, x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let l1 = x.iter().zip(y).map(|(x, y)| (x - y).abs()).sum::<f64>() / n;
    let e = 1e-10 * n;
    let alpha = dot(x, y) / (dot(y, y) + e);
    let off: f64 = x.iter().zip(y).map(|(x, y)| (x - alpha * y).powi(2)).sum();
    let si_sdr = -10.0 * ((alpha * alpha * dot(y, y) + e) / (off + e)).log10();
    let (mut differences, mut ratios) = (f64::from(spec.l1) * l1, f64::from(spec.si_sdr) * si_sdr);
    let (c, floor) = (f64::from(spec.power), f64::from(spec.floor));
    for [len, hop] in &spec.resolutions {
        let (x, y) = (spectrum(x, *len, *hop), spectrum(y, *len, *hop));
        let cells = x.len() as f64;
        let size = |z: &Complex64| (z.norm_sqr() + floor * floor).sqrt();
        let mean = |f: &dyn Fn(&Complex64, &Complex64) -> f64| {
            x.iter().zip(&y).map(|(x, y)| f(x, y)).sum::<f64>() / cells
        };
        let convergence = (mean(&|x, y| (size(x) - size(y)).powi(2)) / mean(&|_, y| size(y).powi(2))).sqrt();
        let log = mean(&|x, y| (size(x).ln() - size(y).ln()).abs());
        let magnitude = mean(&|x, y| {
            let off = size(x).powf(c) - size(y).powf(c);
            off * off * if off < 0.0 { f64::from(spec.asymmetry) } else { 1.0 }
        });
        let complex = mean(&|x, y| (x * size(x).powf(c - 1.0) - y * size(y).powf(c - 1.0)).norm_sqr());
        let count = spec.resolutions.len() as f64;
        differences += (f64::from(spec.convergence) * convergence
            + f64::from(spec.log_magnitude) * log
            + f64::from(spec.compressed_magnitude) * magnitude
            + f64::from(spec.compressed_complex) * complex)
            / count;
        ratios += f64::from(spec.envelope) * envelope(&x, &y, *len, *hop, floor) / count;
    }
    match f64::from(spec.relative) {
        0.0 => differences + ratios,
        relative => relative * (1.0 + differences / 0.01).ln() + ratios,
    }
}

fn noise(len: usize, level: f32, index: u64) -> Vec<f32> {
    let mut dice = Dice::new(11, index);
    (0..len).map(|_| level * dice.normal()).collect()
}

fn specs() -> Vec<(&'static str, LossSpec)> {
    let none = LossSpec { resolutions: vec![[32, 8], [64, 24]], ..LossSpec::none() };
    vec![
        ("l1", LossSpec { l1: 0.7, ..none.clone() }),
        ("si_sdr", LossSpec { si_sdr: 0.1, ..none.clone() }),
        ("convergence", LossSpec { convergence: 1.5, ..none.clone() }),
        ("log_magnitude", LossSpec { log_magnitude: 0.5, ..none.clone() }),
        ("compressed_magnitude", LossSpec { compressed_magnitude: 2.0, ..none.clone() }),
        ("compressed_complex", LossSpec { compressed_complex: 2.0, power: 0.6, ..none.clone() }),
        ("asymmetric", LossSpec { compressed_magnitude: 2.0, asymmetry: 3.0, ..none.clone() }),
        ("envelope and a little l1", LossSpec { envelope: 1.0, l1: 1e-3, ..none.clone() }),
        ("relative", LossSpec { relative: 0.4, l1: 0.7, compressed_magnitude: 3.0, ..none.clone() }),
        (
            "all",
            LossSpec {
                envelope: 0.2,
                relative: 0.3,
                si_sdr: 0.05,
                compressed_complex: 1.0,
                resolutions: none.resolutions,
                ..LossSpec::default()
            },
        ),
    ]
}

/// (name, estimate, target): random, odd, one sample, near silence, silent target, both silent but for one sample.
fn signals() -> Vec<(&'static str, Vec<f32>, Vec<f32>)> {
    let close = |len, level, off| {
        let y = noise(len, level, 1);
        let x = y.iter().zip(noise(len, off, 2)).map(|(y, n)| 0.8 * y + n).collect();
        (x, y)
    };
    let with = |name, (x, y)| (name, x, y);
    let mut click = vec![0.0; 101];
    click[37] = 0.25;
    vec![
        with("even", close(200, 0.3, 0.1)),
        with("odd", close(157, 0.1, 0.05)),
        with("short", close(3, 0.1, 0.05)),
        with("near silence", close(133, 2e-5, 1e-5)),
        ("silent target", noise(119, 0.1, 3), vec![0.0; 119]),
        ("near-silent estimate", noise(119, 1e-5, 3), noise(119, 0.1, 4)),
        ("click", click, noise(101, 1e-4, 5)),
    ]
}

#[test]
fn values_and_gradients_follow_the_definitions() {
    for (term, spec) in specs() {
        let mut loss = Loss::new(&spec, RATE).unwrap();
        for (name, x, y) in signals() {
            let mut grad = vec![f32::NAN; x.len()];
            let got = loss.value_and_grad(&x, &y, &mut grad).unwrap();
            let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (mut x, y) = (wide(&x), wide(&y));
            let want = by_definition(&spec, &x, &y);
            assert!(
                (got.total - want).abs() <= 1e-4 * want.abs().max(1e-3),
                "{term}, {name}: {got:?}, {want}"
            );
            let level = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
            let largest = grad.iter().fold(0f64, |m, g| m.max(f64::from(g.abs())));
            assert!(largest > 0.0 && largest.is_finite(), "{term}, {name}: gradient {largest}");
            // A step small beside the floor keeps away from the corners of |·|.
            let step = 1e-5 * level.min(1e-2);
            for i in (0..x.len()).step_by(1 + x.len() / 40) {
                let centre = x[i];
                x[i] = centre + step;
                let above = by_definition(&spec, &x, &y);
                x[i] = centre - step;
                let below = by_definition(&spec, &x, &y);
                x[i] = centre;
                let slope = (above - below) / (2.0 * step);
                let off = (f64::from(grad[i]) - slope).abs();
                assert!(off <= 1e-3 * largest, "{term}, {name}, sample {i}: {} for {slope}", grad[i]);
            }
        }
    }
}

#[test]
fn silence_and_equality_are_finite() {
    for (term, spec) in specs() {
        let mut loss = Loss::new(&spec, RATE).unwrap();
        for (x, y) in [(vec![0.0; 77], vec![0.0; 77]), (noise(77, 0.1, 6), noise(77, 0.1, 6))] {
            let mut grad = vec![f32::NAN; 77];
            let got = loss.value_and_grad(&x, &y, &mut grad).unwrap();
            assert!(got.total.is_finite() && grad.iter().all(|g| g.is_finite()), "{term}: {got:?}");
            if spec.si_sdr == 0.0 && spec.envelope == 0.0 {
                assert!(got.total.abs() < 1e-9 && grad.iter().all(|g| *g == 0.0), "{term}: {got:?}");
            }
        }
    }
}

#[test]
fn lengths_may_change_between_calls() {
    let (_, spec) = specs().pop().unwrap();
    let mut used = Loss::new(&spec, RATE).unwrap();
    for len in [300, 41, 180] {
        let (x, y) = (noise(len, 0.1, 7), noise(len, 0.1, 8));
        let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
        let fresh = Loss::new(&spec, RATE).unwrap().value_and_grad(&x, &y, &mut a).unwrap();
        assert_eq!(used.value_and_grad(&x, &y, &mut b).unwrap(), fresh);
        assert_eq!(a, b);
    }
}

#[test]
fn recipes_are_checked() {
    let parse = |text: &str| toml::from_str::<LossSpec>(text);
    assert!(parse("l1 = 1.0\nsisdr = 0.1").unwrap_err().to_string().contains("sisdr"));
    let bad = [
        "l1 = -1.0",
        "l1 = nan",
        "l1 = 0.0\nconvergence = 0.0\nlog_magnitude = 0.0",
        "power = 0.0",
        "asymmetry = 0.5",
        "envelope = nan",
        "floor = 0.0",
        "resolutions = []",
        "resolutions = [[255, 64]]",
        "resolutions = [[256, 0]]",
    ];
    for text in bad {
        assert!(Loss::new(&parse(text).unwrap(), RATE).is_err(), "{text}");
    }
    let mut loss = Loss::new(&parse("").unwrap(), RATE).unwrap();
    assert!(loss.value_and_grad(&[0.0; 3], &[0.0; 2], &mut [0.0; 3]).is_err());
    assert!(loss.value_and_grad(&[], &[], &mut []).is_err());
}

#[cfg(feature = "train-cuda")]
#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_losses_agree() {
    use super::device::DeviceLoss;
    use candle_core::Tensor;
    let gpu = crate::exec::candle::device("cuda").unwrap();
    let of = |x: f32| [x, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let (mut specs, mut weights) = (Vec::new(), of(0.7));
    for _ in 0..weights.len() {
        weights.rotate_right(1);
        specs.push((weights, 0.0));
    }
    let all = [1.0, 0.01, 0.3, 0.2, 30.0, 10.0, 0.5];
    specs.extend([(all, 0.0), (all, 0.3)]);
    for (weights, relative) in specs {
        let [l1, si_sdr, convergence, log_magnitude, compressed_magnitude, compressed_complex, envelope] =
            weights;
        let spec = LossSpec {
            l1,
            si_sdr,
            convergence,
            log_magnitude,
            compressed_magnitude,
            compressed_complex,
            envelope,
            relative,
            asymmetry: 2.0,
            resolutions: vec![[256, 96], [320, 150], [1024, 384], [4096, 2048]],
            ..LossSpec::none()
        };
        let (mut host, device) =
            (Loss::new(&spec, 16000).unwrap(), DeviceLoss::new(&spec, 16000, &gpu).unwrap());
        for (examples, len) in [(1, 1), (2, 777), (3, 20_001)] {
            let mut dice = Dice::new(4, len as u64);
            let mut sound = |k: usize| -> Vec<f32> {
                // The last example's target is silent; the others swell, so that some stretches are not active.
                let swell = |t: usize| if k == 2 { 0.0 } else { (t as f32 / len as f32).powi(6) + 1e-4 };
                (0..len).map(|t| swell(t) * dice.normal()).collect()
            };
            let (targets, mut off): (Vec<_>, Vec<_>) =
                (0..examples).map(|k| (sound(k), sound(k % 2))).unzip();
            for (x, y) in off.iter_mut().flatten().zip(targets.iter().flatten()) {
                *x = 0.3 * *x + 0.8 * y;
            }
            let tensor = |x: &[Vec<f32>]| Tensor::from_vec(x.concat(), (examples, len), &gpu).unwrap();
            let (values, grads) = device.values_and_grad(&tensor(&off), &tensor(&targets)).unwrap();
            let (values, grads) = (values.read().unwrap(), grads.to_vec2::<f32>().unwrap());
            for (i, (x, y)) in off.iter().zip(&targets).enumerate() {
                let mut grad = vec![0.0; len];
                let want = host.value_and_grad(x, y, &mut grad).unwrap();
                let far = |a: f64, b: f64| (a - b).abs() / (1e-4 + b.abs());
                assert!(far(values[i].total, want.total) < 1e-5, "{spec:?} {i}: {:?}, {want:?}", values[i]);
                let most = grad.iter().fold(1e-9f32, |m, g| m.max(g.abs()));
                let worst = grad.iter().zip(&grads[i]).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / most;
                println!(
                    "{len} samples, example {i}: value off by {:e}, gradient by {worst:e}",
                    far(values[i].total, want.total)
                );
                assert!(worst < 2e-4, "{spec:?}, {len} samples, example {i}: gradient off by {worst}");
            }
        }
    }
}
