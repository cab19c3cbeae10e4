//! How good a filter is so far: fixed unseen examples through the executor that users run.

use serde::Serialize;

use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Rows, State};
use crate::plan::{Plan, Weights};
use crate::train::loss::Loss;
use crate::train::metrics::si_sdr;
use crate::train::mix::Example;
use crate::train::spread::spread;
use crate::train::task::opened;
use crate::{Error, Result};

/// Means over the validation examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The loss.
    pub loss: f64,
    /// SI-SDR of the noisy sound, dB, where both sounds are there.
    pub noisy_si_sdr: f64,
    /// SI-SDR of the model's output, dB, over the same examples.
    pub si_sdr: f64,
}

/// Runs every example on `losses.len()` threads, each from the settled state if there is one.
pub fn validate(
    plan: &Plan,
    weights: &Weights,
    latency: usize,
    settled: Option<&State>,
    examples: &[Example],
    losses: &mut [Loss],
) -> Result<Figures> {
    if examples.is_empty() {
        return Err(Error::Train("validation has no examples".into()));
    }
    let cpus = opened(plan, weights, settled, 4096, losses.len())?;
    let mut threads: Vec<_> = cpus.into_iter().zip(losses).collect();
    let done = spread(&mut threads, examples.len(), |(cpu, loss), i| one(cpu, latency, &examples[i], loss))?;
    let (mut sum, mut voiced) = (Figures::default(), 0.0f64);
    for (loss, sdr) in done {
        sum.loss += loss / examples.len() as f64;
        if let Some((noisy, enhanced)) = sdr {
            sum.noisy_si_sdr += noisy;
            sum.si_sdr += enhanced;
            voiced += 1.0;
        }
    }
    sum.noisy_si_sdr /= voiced.max(1.0);
    sum.si_sdr /= voiced.max(1.0);
    Ok(sum)
}

/// An example's loss, and the SI-SDR before and after, where both sounds are there.
type Found = (f64, Option<(f64, f64)>);

fn one(cpu: &mut Cpu, latency: usize, example: &Example, loss: &mut Loss) -> Result<Found> {
    let rows = example.noisy.len() + latency;
    let mut input = example.noisy.clone();
    input.resize(rows, 0.0);
    let mut output = vec![0.0; rows];
    cpu.reset(0);
    cpu.advance(&[Feed { stream: 0, rows }], Rows::Samples(&input), &mut output)?;
    let estimate = &output[latency..];
    let mut unused = vec![0.0; estimate.len()];
    let total = loss.value_and_grad(estimate, &example.clean, &mut unused)?.total;
    let both = example
        .snr_db
        .and_then(|_| Some((si_sdr(&example.noisy, &example.clean)?, si_sdr(estimate, &example.clean)?)));
    Ok((total, both))
}
