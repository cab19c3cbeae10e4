//! AdamW on flat `f32` groups, with clipping by the global norm and a moving average of the weights.
//!
//! For gradient g at step t = 1, 2, …, rate η and decay λ:
//!
//! ```text
//! g ← g·min(1, clip/‖g‖)                       ‖g‖ over all groups
//! m ← β₁m + (1 − β₁)g       v ← β₂v + (1 − β₂)g²
//! θ ← θ − ηλθ − η·m̂/(√v̂ + ε),   m̂ = m/(1 − β₁ᵗ),   v̂ = v/(1 − β₂ᵗ)
//! ema ← d·ema + (1 − d)·θ,      d = min(decay, (1 + t)/(10 + t))
//! ```
//!
//! Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with λ scaled by η as PyTorch's
//! `AdamW` does; the average's early decay is TensorFlow's `ExponentialMovingAverage`. A gradient that is not finite
//! changes nothing and is reported.
//!
//! ```
//! use cascabel::train::adamw::{AdamW, AdamWSpec, Group};
//! let mut theta = vec![1.0f32, -1.0];
//! let mut optimiser = AdamW::new(&AdamWSpec::default(), vec![Group::new("w", &theta)])?;
//! let step = optimiser.step(1e-2, &mut [&mut theta], &[&[0.5, 0.0]])?;
//! assert!(!step.skipped && theta[0] < 0.991);
//! # Ok::<(), cascabel::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The optimiser's settings in a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWSpec {
    /// β₁, β₂.
    pub betas: [f32; 2],
    /// ε.
    pub eps: f32,
    /// λ, for groups that decay.
    pub weight_decay: f32,
    /// The largest global norm of the gradient; 0 does not clip.
    pub clip: f32,
    /// The decay of the weights' moving average; 0 follows the weights.
    pub ema: f32,
}

impl Default for AdamWSpec {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, clip: 1.0, ema: 0.999 }
    }
}

impl AdamWSpec {
    fn check(&self) -> Result<()> {
        let unit = |x: f32| (0.0..1.0).contains(&x);
        let most = |x: f32| x.is_finite() && x >= 0.0;
        let fine = self.betas.into_iter().all(unit)
            && unit(self.ema)
            && most(self.eps)
            && self.eps > 0.0
            && most(self.weight_decay)
            && most(self.clip);
        let expected = "betas and ema from 0 to below 1, eps above 0, weight_decay and clip 0 or more";
        if fine { Ok(()) } else { Err(Error::input("optimiser", expected, format!("{self:?}"))) }
    }
}

/// One tensor, flattened, with its optimiser state.
pub struct Group {
    name: String,
    decays: bool,
    rate: f32,
    m: Vec<f32>,
    v: Vec<f32>,
    ema: Vec<f32>,
}

impl Group {
    /// A group of the given initial weights that decays and learns at the full rate.
    pub fn new(name: impl Into<String>, weights: &[f32]) -> Self {
        let zero = vec![0.0; weights.len()];
        Self { name: name.into(), decays: true, rate: 1.0, m: zero.clone(), v: zero, ema: weights.to_vec() }
    }

    /// Without weight decay: biases, norms, A_log, D.
    pub fn no_decay(mut self) -> Self {
        self.decays = false;
        self
    }

    /// With a rate `factor` times the schedule's: S4D's A and Δ.
    pub fn rate(mut self, factor: f32) -> Self {
        self.rate = factor;
        self
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it decays, and its rate relative to the schedule's.
    pub fn pace(&self) -> (bool, f32) {
        (self.decays, self.rate)
    }

    /// m, v and the moving average.
    pub fn state(&self) -> [&[f32]; 3] {
        [&self.m, &self.v, &self.ema]
    }

    /// The moving average of the weights.
    pub fn ema(&self) -> &[f32] {
        &self.ema
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The gradient's global norm before clipping.
    pub norm: f64,
    /// Whether it was clipped.
    pub clipped: bool,
    /// Whether the gradient was not finite, so that nothing changed.
    pub skipped: bool,
}

/// What depends on the number of a step alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// 1 − β₁ᵗ.
    pub bias1: f64,
    /// √(1 − β₂ᵗ).
    pub bias2: f32,
    /// d of the moving average.
    pub average: f32,
}

impl Pace {
    /// At step t = 1, 2, …
    pub fn at(spec: &AdamWSpec, step: u64) -> Self {
        let t = step as f64;
        let left = |beta: f32| 1.0 - f64::from(beta).powf(t);
        let average = f64::from(spec.ema).min((1.0 + t) / (10.0 + t)) as f32;
        Self { bias1: left(spec.betas[0]), bias2: left(spec.betas[1]).sqrt() as f32, average }
    }
}

/// The optimiser.
pub struct AdamW {
    spec: AdamWSpec,
    groups: Vec<Group>,
    steps: u64,
}

impl AdamW {
    /// An optimiser at step 0.
    pub fn new(spec: &AdamWSpec, groups: Vec<Group>) -> Result<Self> {
        spec.check()?;
        Ok(Self { spec: spec.clone(), groups, steps: 0 })
    }

    /// The settings.
    pub fn spec(&self) -> &AdamWSpec {
        &self.spec
    }

    /// The groups, in the order given.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Steps done, skipped ones left out.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves `weights` along `grads`, both in the groups' order, at rate `rate`. Does not allocate.
    pub fn step(&mut self, rate: f32, weights: &mut [&mut [f32]], grads: &[&[f32]]) -> Result<StepReport> {
        self.check_shapes(weights, grads)?;
        let squares = |g: &&[f32]| g.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        let norm = grads.iter().map(squares).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Ok(StepReport { norm, clipped: false, skipped: true });
        }
        self.steps += 1;
        let clip = f64::from(self.spec.clip);
        let clipped = clip > 0.0 && norm > clip;
        let scale = if clipped { (clip / norm) as f32 } else { 1.0 };
        let [b1, b2] = self.spec.betas;
        let Pace { bias1, bias2, average: d } = Pace::at(&self.spec, self.steps);
        for ((group, weights), grads) in self.groups.iter_mut().zip(weights).zip(grads) {
            let rate = rate * group.rate;
            let keep = 1.0 - if group.decays { rate * self.spec.weight_decay } else { 0.0 };
            let pace = (f64::from(rate) / bias1) as f32;
            let moments = group.m.iter_mut().zip(&mut group.v).zip(&mut group.ema);
            for (((m, v), ema), (w, g)) in moments.zip(weights.iter_mut().zip(*grads)) {
                let g = g * scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *w = *w * keep - pace * *m / (v.sqrt() / bias2 + self.spec.eps);
                *ema = d * *ema + (1.0 - d) * *w;
            }
        }
        Ok(StepReport { norm, clipped, skipped: false })
    }

    /// The state as named vectors `m.NAME`, `v.NAME`, `ema.NAME`; with [`AdamW::steps`] it is all that a resumed run needs.
    pub fn state(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.groups.iter().flat_map(|group| {
            let [m, v, ema] = group.state();
            let named = |kind, data| (format!("{kind}.{}", group.name), data);
            [named("m", m), named("v", v), named("ema", ema)]
        })
    }

    /// Takes over the state of `steps` steps, each kind as one vector a group of the group's length.
    #[cfg(feature = "train-cuda")]
    pub(super) fn take(&mut self, steps: u64, [m, v, ema]: [Vec<Vec<f32>>; 3]) {
        for (group, ((m, v), ema)) in self.groups.iter_mut().zip(m.into_iter().zip(v).zip(ema)) {
            (group.m, group.v, group.ema) = (m, v, ema);
        }
        self.steps = steps;
    }

    /// Takes back the state of `steps` steps; `find` gives the vector of a name. On an error nothing has changed.
    pub fn restore(&mut self, steps: u64, find: impl Fn(&str) -> Option<Vec<f32>>) -> Result<()> {
        let take = |name: String, len: usize| match find(&name) {
            Some(data) if data.len() == len && data.iter().all(|x| x.is_finite()) => Ok(data),
            Some(data) if data.len() == len => Err(Error::input(name, "finite numbers", "NaN or infinity")),
            Some(data) => Err(Error::input(name, format!("{len} numbers"), data.len().to_string())),
            None => Err(Error::input(name, format!("{len} numbers"), "nothing")),
        };
        let read = |group: &Group| {
            let part = |kind| take(format!("{kind}.{}", group.name), group.m.len());
            Ok([part("m")?, part("v")?, part("ema")?])
        };
        let parts = self.groups.iter().map(read).collect::<Result<Vec<_>>>()?;
        for (group, [m, v, ema]) in self.groups.iter_mut().zip(parts) {
            (group.m, group.v, group.ema) = (m, v, ema);
        }
        self.steps = steps;
        Ok(())
    }

    fn check_shapes(&self, weights: &[&mut [f32]], grads: &[&[f32]]) -> Result<()> {
        let got = |n: usize| format!("{n} tensors");
        if weights.len() != self.groups.len() || grads.len() != self.groups.len() {
            let got = got(weights.len().min(grads.len()));
            return Err(Error::input("weights and gradients", format!("{} tensors", self.groups.len()), got));
        }
        for ((group, w), g) in self.groups.iter().zip(weights).zip(grads) {
            if w.len() != group.m.len() || g.len() != group.m.len() {
                let (want, got) = (group.m.len().to_string(), format!("{} and {}", w.len(), g.len()));
                return Err(Error::input(format!("length of {} and its gradient", group.name), want, got));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: AdamWSpec =
        AdamWSpec { betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.1, clip: 0.0, ema: 0.9 };

    fn gradient(t: usize, i: usize) -> f32 {
        ((t * 7 + i * 3) as f32 * 0.37).sin() * 0.8 - 0.1
    }

    /// Algorithm 2 of the paper, one scalar, f64.
    fn by_formula(mut w: f64, i: usize, steps: usize, decay: f64, rate: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for t in 1..=steps {
            let g = f64::from(gradient(t, i));
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            w -= rate * decay * w;
            w -= rate * (m / (1.0 - 0.9f64.powi(t as i32)))
                / ((v / (1.0 - 0.99f64.powi(t as i32))).sqrt() + 1e-6);
        }
        w
    }

    fn run(optimiser: &mut AdamW, a: &mut [f32], b: &mut [f32], steps: std::ops::RangeInclusive<usize>) {
        for t in steps {
            let ga: Vec<f32> = (0..a.len()).map(|i| gradient(t, i)).collect();
            let gb: Vec<f32> = (0..b.len()).map(|i| gradient(t, i + 10)).collect();
            optimiser.step(0.05, &mut [a, b], &[&ga, &gb]).unwrap();
        }
    }

    #[test]
    fn follows_the_formula() {
        let (mut a, mut b) = (vec![1.0, -0.5, 0.0], vec![0.3, 2.0]);
        let groups = vec![Group::new("a", &a), Group::new("b", &b).no_decay().rate(0.1)];
        let mut optimiser = AdamW::new(&PLAIN, groups).unwrap();
        run(&mut optimiser, &mut a, &mut b, 1..=30);
        for (i, (got, start)) in a.iter().zip([1.0, -0.5, 0.0]).enumerate() {
            let want = by_formula(start, i, 30, 0.1, 0.05);
            assert!((f64::from(*got) - want).abs() < 1e-5, "a[{i}] = {got}, {want}");
        }
        for (i, (got, start)) in b.iter().zip([f64::from(0.3f32), 2.0]).enumerate() {
            let want = by_formula(start, i + 10, 30, 0.0, 0.005);
            assert!((f64::from(*got) - want).abs() < 1e-5, "b[{i}] = {got}, {want}");
        }
    }

    #[test]
    fn the_average_follows_the_weights() {
        let mut w = vec![1.0f32];
        let mut optimiser = AdamW::new(&PLAIN, vec![Group::new("w", &w)]).unwrap();
        let mut ema = 1.0f64;
        for t in 1..=200u32 {
            optimiser.step(0.01, &mut [&mut w], &[&[0.3]]).unwrap();
            let d = 0.9f64.min(f64::from(1 + t) / f64::from(10 + t));
            ema = d * ema + (1.0 - d) * f64::from(w[0]);
        }
        let got = f64::from(optimiser.groups()[0].ema()[0]);
        assert!((got - ema).abs() < 1e-5 && got > f64::from(w[0]), "{got} for {ema}, weight {}", w[0]);
    }

    #[test]
    fn clips_by_the_global_norm_and_skips_what_is_not_finite() {
        // β₁ = 0: m is the clipped gradient.
        let spec = AdamWSpec { betas: [0.0, 0.5], clip: 1.0, ..PLAIN };
        let (mut a, mut b) = (vec![0.0f32], vec![0.0f32]);
        let mut optimiser = AdamW::new(&spec, vec![Group::new("a", &a), Group::new("b", &b)]).unwrap();
        let report = optimiser.step(0.1, &mut [&mut a, &mut b], &[&[3.0], &[4.0]]).unwrap();
        assert_eq!((report.norm, report.clipped), (5.0, true));
        let m: Vec<f32> = optimiser.groups().iter().map(|g| g.m[0]).collect();
        assert!((m[0] - 0.6).abs() < 1e-6 && (m[1] - 0.8).abs() < 1e-6, "{m:?}");
        let before = (a.clone(), b.clone());
        let report = optimiser.step(0.1, &mut [&mut a, &mut b], &[&[f32::NAN], &[1.0]]).unwrap();
        assert!(report.skipped && (a, b) == before && optimiser.steps() == 1);
    }

    #[test]
    fn resumes_to_the_same_bits() {
        let groups = |a: &[f32], b: &[f32]| vec![Group::new("a", a), Group::new("b", b).no_decay()];
        let (mut a, mut b) = (vec![1.0, -0.5, 0.0], vec![0.3, 2.0]);
        let mut whole = AdamW::new(&PLAIN, groups(&a, &b)).unwrap();
        run(&mut whole, &mut a, &mut b, 1..=7);
        let saved: std::collections::HashMap<String, Vec<f32>> =
            whole.state().map(|(name, data)| (name, data.to_vec())).collect();
        let (mut a2, mut b2) = (a.clone(), b.clone());
        let mut resumed = AdamW::new(&PLAIN, groups(&a2, &b2)).unwrap();
        resumed.restore(whole.steps(), |name| saved.get(name).cloned()).unwrap();
        run(&mut whole, &mut a, &mut b, 8..=20);
        run(&mut resumed, &mut a2, &mut b2, 8..=20);
        assert_eq!((a, b), (a2, b2));
        assert!(whole.state().eq(resumed.state()) && whole.steps() == resumed.steps());
    }

    #[test]
    fn wrong_shapes_and_states_are_errors() {
        let mut w = vec![0.0f32; 2];
        let mut optimiser = AdamW::new(&PLAIN, vec![Group::new("w", &w)]).unwrap();
        assert!(optimiser.step(0.1, &mut [&mut w], &[&[0.0; 3]]).is_err());
        assert!(optimiser.step(0.1, &mut [&mut w], &[]).is_err());
        assert!(optimiser.restore(3, |_| None).unwrap_err().to_string().contains("m.w"));
        assert!(optimiser.restore(3, |_| Some(vec![0.0; 3])).is_err());
        assert!(optimiser.restore(3, |_| Some(vec![0.0, f32::NAN])).is_err());
        assert_eq!(optimiser.steps(), 0);
        assert!(AdamW::new(&AdamWSpec { betas: [1.0, 0.9], ..PLAIN }, vec![]).is_err());
    }
}
