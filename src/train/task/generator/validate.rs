//! The bits that the samples of unseen clips cost, by the executor that users run: as `cascabel eval` counts them; and whether they cost least as
//! what they are. A class is a few bits of a clip's thousands, and bits a sample hardly show whether a model knows one from another.

use std::f64::consts::LN_2;

use super::clips::{Clip, Clips};
use super::spaced;
use crate::Result;
use crate::audio::mu_law::{LEVELS, SILENCE};
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Rows, State, surprise};
use crate::plan::{Plan, Weights};
use crate::train::spread::spread;
use crate::train::task::opened;

/// Rows that an executor runs at once.
const ROWS: usize = 256;
/// The most clips that are heard as every class.
const KNOWN: usize = 64;

/// Bits a sample, the mean over clips, on so many threads. Each clip is one stream from `begin`, or zeros, to its end, after one token
/// of silence.
pub fn bits(
    plan: &Plan,
    weights: &Weights,
    begin: Option<&State>,
    clips: &Clips,
    threads: usize,
) -> Result<f64> {
    let clips = clips.all();
    let mut cpus = opened(plan, weights, begin, ROWS, threads.min(clips.len()))?;
    let each = spread(&mut cpus, clips.len(), |cpu, i| nats(cpu, &clips[i], clips[i].class()))?;
    Ok(each.iter().sum::<f64>() / each.len().max(1) as f64 / LN_2)
}

/// The share of clips that cost less as what they are than as any other of the first so many classes: of at most 64 clips, each heard as every class.
/// None where no clip is of one of them.
pub fn known(
    plan: &Plan,
    weights: &Weights,
    begin: Option<&State>,
    (clips, classes): (&Clips, usize),
    threads: usize,
) -> Result<Option<f64>> {
    let of_a_class: Vec<&Clip> =
        clips.all().iter().filter(|clip| (clip.class() as usize) < classes).collect();
    let clips = spaced(&of_a_class, KNOWN);
    if clips.is_empty() {
        return Ok(None);
    }
    let mut cpus = opened(plan, weights, begin, ROWS, threads.min(clips.len()))?;
    let each = spread(&mut cpus, clips.len(), |cpu, i| {
        let own = nats(cpu, clips[i], clips[i].class())?;
        let mut others = (0..classes as u32).filter(|class| *class != clips[i].class());
        // What costs the same as any class is not known.
        others.try_fold(true, |known, class| Ok(known && own < nats(cpu, clips[i], class)?))
    })?;
    Ok(Some(each.iter().filter(|known| **known).count() as f64 / each.len() as f64))
}

/// Nats a sample of one clip, heard as of a class.
fn nats(cpu: &mut Cpu, clip: &Clip, class: u32) -> Result<f64> {
    cpu.reset(0);
    let of_class = class * LEVELS as u32;
    let (mut last, mut sum, mut logits) = (SILENCE, 0.0, vec![0.0; ROWS * LEVELS]);
    for from in (0..clip.len()).step_by(ROWS) {
        let to = (from + ROWS).min(clip.len());
        let wanted: Vec<u32> = (from..to).map(|i| clip.token(Some(i), 1.0)).collect();
        let before = std::iter::once(last).chain(wanted.iter().copied());
        let heard: Vec<u32> = before.take(wanted.len()).map(|token| token + of_class).collect();
        let logits = &mut logits[..heard.len() * LEVELS];
        cpu.advance(&[Feed { stream: 0, rows: heard.len() }], Rows::Tokens(&heard), logits)?;
        sum +=
            logits.chunks(LEVELS).zip(&wanted).map(|(logits, token)| surprise(logits, *token)).sum::<f64>();
        last = wanted.last().copied().unwrap_or(last);
    }
    Ok(sum / clip.len().max(1) as f64)
}
