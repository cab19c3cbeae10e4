//! How good the model is so far: fixed unseen examples through the executor that users run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::loss::Loss;
use super::metrics::si_sdr;
use super::mix::Example;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Limits, Rows, State};
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

/// Means over the validation examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Validation {
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
) -> Result<Validation> {
    let open = |_: &Loss| {
        let mut cpu = Cpu::open(plan, weights, Limits { max_rows: 4096, max_streams: 1 });
        settled.map_or(Ok(()), |settled| cpu.set_initial(settled))?;
        Ok(cpu)
    };
    let mut cpus = losses.iter().map(open).collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (loss, cpu) in losses.iter_mut().zip(&mut cpus) {
            let (next, done) = (&next, &done);
            scope.spawn(move || {
                while let Some((i, example)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, examples.get(i)?)))
                {
                    let figures = one(cpu, latency, example, loss);
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((i, figures));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(i, _)| *i);
    if done.len() != examples.len() || done.is_empty() {
        return Err(Error::Train("validation stopped early".into()));
    }
    let (mut sum, mut voiced) = (Validation::default(), 0.0f64);
    for (_, figures) in done {
        let (loss, sdr) = figures?;
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

type Figures = (f64, Option<(f64, f64)>);

fn one(cpu: &mut Cpu, latency: usize, example: &Example, loss: &mut Loss) -> Result<Figures> {
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
