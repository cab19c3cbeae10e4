//! Tokens drawn from logits.
//!
//! ```text
//! p_i ∝ exp((l_i − max l)/temperature)    the k most likely tokens (top-k; Fan et al. 2018, arXiv 1805.04833), then
//!                                          the fewest whose share of these is at least p (top-p; Holtzman et al. 2020, arXiv 1904.09751)
//! ```
//!
//! The random number is a function of (seed, stream, position) alone: what a stream says depends neither on the streams beside it nor on how
//! its rows are cut into calls.
//!
//! ```
//! use cascabel::exec::{Sampler, Sampling};
//! let mut sampler = Sampler::open(Sampling::Random { temperature: 1.0, top_k: Some(2), top_p: None }, 7, 4)?;
//! let token = sampler.draw(&[0.0, 3.0, -1.0, 2.9], 0, 41);
//! assert!(token == 1 || token == 3);
//! assert_eq!(sampler.draw(&[0.0, 3.0, -1.0, 2.9], 0, 41), token);
//! # Ok::<(), cascabel::Error>(())
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

use crate::plan::Draws;
use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most likely token, the first of equals.
    Greedy,
    /// At random.
    Random {
        /// Divides the logits; above 0. Below 1 the likely become likelier.
        temperature: f32,
        /// Of how many of the most likely tokens; at least 1.
        top_k: Option<usize>,
        /// Of the fewest of the most likely that have this share; above 0, at most 1.
        top_p: Option<f32>,
    },
}

impl Default for Sampling {
    fn default() -> Self {
        Self::Random { temperature: 1.0, top_k: None, top_p: None }
    }
}

impl Sampling {
    /// One line for the first number that is out of range.
    pub fn check(&self) -> Result<()> {
        let Self::Random { temperature, top_k, top_p } = *self else { return Ok(()) };
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::input("temperature", "a number above 0", temperature.to_string()));
        }
        if top_k == Some(0) {
            return Err(Error::input("top-k", "at least 1 token", "0"));
        }
        match top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(Error::input("top-p", "a share above 0, at most 1", p.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// What `token` costs by these logits, in nats: −ln of the share that it was given at temperature 1.
pub fn surprise(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    total.ln() - f64::from(own - most)
}

/// Draws tokens. Opening allocates; drawing does not.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// Tokens, the likely ones first where some are cut.
    order: Vec<u32>,
    weights: Vec<f32>,
}

impl Sampler {
    /// For a vocabulary of this size.
    pub fn open(sampling: Sampling, seed: u64, vocabulary: usize) -> Result<Self> {
        sampling.check()?;
        Ok(Self { sampling, seed, order: vec![0; vocabulary], weights: vec![0.0; vocabulary] })
    }

    /// The token that follows, by its logits (as many as the vocabulary has), for row `position` of stream `stream`. A logit that is no
    /// number is never drawn.
    #[rtsan_standalone::nonblocking]
    pub fn draw(&mut self, logits: &[f32], stream: u64, position: u64) -> u32 {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let best = logits.iter().position(|l| *l == most).unwrap_or(0) as u32;
        let Sampling::Random { temperature, top_k, top_p } = self.sampling else { return best };
        let vocabulary = logits.len().min(self.weights.len());
        let (Some(weights), Some(order)) =
            (self.weights.get_mut(..vocabulary), self.order.get_mut(..vocabulary))
        else {
            return best;
        };
        for (weight, logit) in weights.iter_mut().zip(logits) {
            let w = libm::expf((logit - most) / temperature);
            *weight = if w.is_finite() { w } else { 0.0 };
        }
        order.iter_mut().zip(0..).for_each(|(token, i)| *token = i);
        let weight = |token: &u32| weights.get(*token as usize).copied().unwrap_or(0.0);
        let mut kept = vocabulary;
        if top_k.is_some() || top_p.is_some() {
            let likely_first = |a: &u32, b: &u32| weight(b).total_cmp(&weight(a)).then(a.cmp(b));
            kept = top_k.unwrap_or(vocabulary).min(vocabulary);
            if kept < vocabulary {
                order.select_nth_unstable_by(kept, likely_first);
            }
            if let Some(likely) = order.get_mut(..kept) {
                likely.sort_unstable_by(likely_first);
            }
        }
        let kept = order.get(..kept).unwrap_or(&[]);
        let total: f64 = kept.iter().map(|token| f64::from(weight(token))).sum();
        let share = top_p.map_or(1.0, f64::from);
        // Where the share is reached, and so how much of the total there is to draw from.
        let (mut sum, mut end) = (0.0, kept.len());
        if share < 1.0 {
            for (i, token) in kept.iter().enumerate() {
                sum += f64::from(weight(token));
                if sum >= share * total {
                    end = i + 1;
                    break;
                }
            }
        } else {
            sum = total;
        }
        let mut left = Draws::at(self.seed, stream, position) * sum;
        for token in kept.iter().take(end) {
            left -= f64::from(weight(token));
            if left < 0.0 {
                return *token;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32], draws: u64) -> Vec<f64> {
        let mut sampler = Sampler::open(sampling, 3, logits.len()).unwrap();
        let mut counts = vec![0.0; logits.len()];
        for position in 0..draws {
            counts[sampler.draw(logits, 5, position) as usize] += 1.0 / draws as f64;
        }
        counts
    }

    fn random(temperature: f32, top_k: Option<usize>, top_p: Option<f32>) -> Sampling {
        Sampling::Random { temperature, top_k, top_p }
    }

    #[test]
    fn tokens_come_as_often_as_they_should() {
        let logits = [0.5, -1.0, 2.0, 0.4, -3.0, 1.9];
        let softmax = |t: f32, kept: &[usize]| -> Vec<f64> {
            let w = |i: usize| if kept.contains(&i) { f64::from(logits[i] / t).exp() } else { 0.0 };
            let total: f64 = (0..6).map(w).sum();
            (0..6).map(|i| w(i) / total).collect()
        };
        let all = [0, 1, 2, 3, 4, 5];
        // Of the probabilities .10 .02 .45 .09 .003 .33: .6 needs two tokens, .87 three, .9 four.
        for (sampling, wanted) in [
            (random(1.0, None, None), softmax(1.0, &all)),
            (random(0.5, None, None), softmax(0.5, &all)),
            (random(2.0, Some(6), Some(1.0)), softmax(2.0, &all)),
            (random(1.0, Some(3), None), softmax(1.0, &[0, 2, 5])),
            (random(1.0, None, Some(0.6)), softmax(1.0, &[2, 5])),
            (random(1.0, None, Some(0.9)), softmax(1.0, &[0, 2, 3, 5])),
            (random(1.0, Some(3), Some(0.6)), softmax(1.0, &[2, 5])),
            (random(1.0, Some(1), None), softmax(1.0, &[2])),
            (random(1.0, None, Some(1e-6)), softmax(1.0, &[2])),
            (Sampling::Greedy, softmax(1.0, &[2])),
        ] {
            let found = shares(sampling, &logits, 40_000);
            // Four deviations of a share near one half.
            assert!(
                found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 0.01),
                "{sampling:?}: {found:?} {wanted:?}"
            );
            assert!(found.iter().zip(&wanted).all(|(a, b)| *b > 0.0 || *a == 0.0), "{sampling:?}");
        }
    }

    #[test]
    fn streams_and_positions_draw_by_themselves_and_odd_logits_do_no_harm() {
        let mut sampler = Sampler::open(Sampling::default(), 1, 256).unwrap();
        let flat = [0.0; 256];
        let mut said = |stream, position| sampler.draw(&flat, stream, position);
        let first: Vec<u32> = (0..64).map(|i| said(0, i)).collect();
        assert_eq!(first, (0..64).map(|i| said(0, i)).collect::<Vec<_>>());
        assert_ne!(first, (0..64).map(|i| said(1, i)).collect::<Vec<_>>());
        for sampling in [Sampling::Greedy, random(1.0, None, None), random(1.0, Some(2), Some(0.5))] {
            let mut sampler = Sampler::open(sampling, 1, 3).unwrap();
            for position in 0..100 {
                assert_eq!(sampler.draw(&[f32::NAN, 0.0, f32::NEG_INFINITY], 0, position), 1, "{sampling:?}");
            }
            assert_eq!(sampler.draw(&[f32::NAN; 3], 0, 0), 0);
            assert_eq!(sampler.draw(&[f32::INFINITY, 0.0, 0.0], 0, 0), 0);
            assert_eq!(sampler.draw(&[1e-30, f32::MAX, f32::MIN], 0, 0), 1);
            assert_eq!(sampler.draw(&[], 0, 0), 0);
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (sampling, expected) in [
            (random(0.0, None, None), "temperature: expected a number above 0, got 0"),
            (random(f32::NAN, None, None), "temperature: expected a number above 0, got NaN"),
            (random(1.0, Some(0), None), "top-k: expected at least 1 token, got 0"),
            (random(1.0, None, Some(1.5)), "top-p: expected a share above 0, at most 1, got 1.5"),
        ] {
            assert_eq!(Sampler::open(sampling, 1, 4).unwrap_err().to_string(), expected);
        }
    }
}
