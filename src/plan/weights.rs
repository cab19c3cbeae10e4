//! Parameter values, by number, and how training begins with them.

use std::sync::Arc;

use super::draws::Draws;
use super::{ParamId, Plan};
use crate::{Error, Result};

/// The initial distribution of a parameter. Sources: the Mamba paper, §3.6 and app. C; S4D, §4.
#[derive(Clone, Debug)]
pub enum Init {
    /// One value everywhere.
    Const(f32),
    /// Uniform in ± the bound.
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// The logarithm of a number log-uniform between these two.
    LogUniform(f32, f32),
    /// `log(1 + n)` along the last axis: A = −1, −2, … (S4D-Real).
    ALogRamp,
    /// `π n` along the last axis (S4D-Lin).
    PiRamp,
    /// `softplus⁻¹(Δ)`, Δ log-uniform between these two.
    DtBias(f32, f32),
    /// These values.
    Values(Arc<[f32]>),
}

impl Init {
    fn fill(&self, shape: &[usize], draws: &mut Draws) -> Vec<f32> {
        let (len, last) = (shape.iter().product(), shape.last().copied().unwrap_or(1).max(1));
        let log_uniform = |u: f64, lo: f64, hi: f64| (lo.ln() + u * (hi.ln() - lo.ln())).exp();
        let mut one = |i: usize| -> f64 {
            match self {
                Self::Const(c) => f64::from(*c),
                Self::Uniform(bound) => f64::from(*bound) * (2.0 * draws.uniform() - 1.0),
                Self::Normal(std) => f64::from(*std) * draws.normal(),
                Self::LogUniform(lo, hi) => log_uniform(draws.uniform(), f64::from(*lo), f64::from(*hi)).ln(),
                Self::ALogRamp => ((1 + i % last) as f64).ln(),
                Self::PiRamp => std::f64::consts::PI * (i % last) as f64,
                Self::DtBias(lo, hi) => {
                    let dt = log_uniform(draws.uniform(), f64::from(*lo), f64::from(*hi));
                    dt + (-(-dt).exp_m1()).ln()
                }
                Self::Values(values) => f64::from(values.get(i).copied().unwrap_or(0.0)),
            }
        };
        (0..len).map(|i| one(i) as f32).collect()
    }
}

/// The values of a plan's parameters, row-major, in the plan's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    tensors: Vec<Vec<f32>>,
}

impl Weights {
    /// Random weights: a function of the plan, the parameters' names and the seed.
    pub fn random(plan: &Plan, seed: u64) -> Self {
        let stream = |name: &str| {
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
        };
        let fill = |p: &super::Param| p.init.fill(&p.shape, &mut Draws::new(seed, stream(&p.name)));
        Self { tensors: plan.params.iter().map(fill).collect() }
    }

    /// Weights from values in the plan's order; lengths are checked, and every value must be finite.
    pub fn new(plan: &Plan, tensors: Vec<Vec<f32>>) -> Result<Self> {
        if tensors.len() != plan.params.len() {
            return Err(Error::input(
                "weights",
                format!("{} tensors", plan.params.len()),
                tensors.len().to_string(),
            ));
        }
        for (param, tensor) in plan.params.iter().zip(&tensors) {
            if tensor.len() != param.len() {
                let expected = format!("{:?} ({} numbers)", param.shape, param.len());
                return Err(Error::input(
                    format!("tensor {}", param.name),
                    expected,
                    format!("{} numbers", tensor.len()),
                ));
            }
            if let Some(at) = tensor.iter().position(|x| !x.is_finite()) {
                let got = format!("{} at element {at}", tensor[at]);
                return Err(Error::input(format!("tensor {}", param.name), "finite numbers", got));
            }
        }
        Ok(Self { tensors })
    }

    /// The values of one parameter.
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.tensors[id.0]
    }

    /// All tensors, in the plan's order.
    pub fn tensors(&self) -> &[Vec<f32>] {
        &self.tensors
    }

    /// All tensors, to change in place.
    pub fn tensors_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.tensors
    }

    /// Rounds each tensor to f16, but those with numbers beyond its range: a model file then takes half the room.
    pub fn round_to_f16(&mut self) {
        let fits = |x: &f32| x.abs() <= half::f16::MAX.to_f32();
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.iter().all(fits)) {
            tensor.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dt_bias_is_inverse_softplus_of_a_step_in_range() {
        let bias = Init::DtBias(1e-3, 1e-1).fill(&[4096], &mut Draws::new(1, 2));
        let dt: Vec<f64> = bias.iter().map(|b| f64::from(*b).exp().ln_1p()).collect();
        assert!(dt.iter().all(|dt| (0.99e-3..=1.01e-1).contains(dt)));
        let mean_log = dt.iter().map(|d| d.ln()).sum::<f64>() / 4096.0;
        assert!((mean_log - 1e-2f64.ln()).abs() < 0.1, "{mean_log}");
    }

    #[test]
    fn normal_draws_have_unit_variance_and_depend_on_the_stream() {
        let a = Init::Normal(1.0).fill(&[10_000], &mut Draws::new(7, 0));
        let b = Init::Normal(1.0).fill(&[10_000], &mut Draws::new(7, 1));
        let var = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
        assert!((var(&a) - 1.0).abs() < 0.05);
        assert!(a.iter().zip(&b).all(|(x, y)| x != y));
    }
}
