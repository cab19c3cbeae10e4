//! Tokens that a model makes, one after the other: sound in mu-law, or text.
//!
//! ```text
//! heard ─► advance, in chunks ─► the state, and the token heard last ─┐
//!                                                   ┌────────────────┘
//!                              last ─► advance a row ─► logits ─► draw ─► said, and the new last
//! ```
//!
//! A stream's token at a position is a function of what it has heard and said, of the seed and of its number; neither the streams beside it nor the
//! length of the calls change a bit. A sound begins after one token of silence, so that its first sample is drawn as all others are.
//!
//! ```
//! use cascabel::engine::{Generator, GeneratorOptions};
//! use cascabel::model::{Card, Config, Model};
//! use cascabel::plan::Weights;
//! let config: Config = serde_json::from_str(
//!     r#"{"kind": "generator", "rate": 8000,
//!         "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#).unwrap();
//! let weights = Weights::random(&config.plan()?, 1);
//! let model = Model::new(config, weights, Card::default())?;
//!
//! let mut generator = Generator::open(&model, GeneratorOptions::default())?;
//! let mut said = [0; 100];
//! generator.generate(&mut said)?;
//! # Ok::<(), cascabel::Error>(())
//! ```

use super::open;
use crate::audio::mu_law::SILENCE;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Limits, Misuse, Rows, Sampler, Sampling, State, surprise};
use crate::model::{Config, Model};
use crate::plan::Plan;
use crate::{Error, Result};

/// Rows that the executor runs at once while it listens.
const ROWS: usize = 256;

/// How a generator is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneratorOptions {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The seed of all streams.
    pub seed: u64,
    /// Streams that go side by side.
    pub streams: usize,
    /// The number of the first stream, by which its random numbers are drawn; the others follow.
    pub first: u64,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self { sampling: Sampling::default(), seed: 0, streams: 1, first: 0 }
    }
}

/// What a stream goes on from: its state, the token that has not been taken into it, and its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    /// The state after all tokens but the last.
    pub state: State,
    /// The last token.
    pub last: u32,
    /// The class that it is of.
    pub class: usize,
}

impl Spot {
    /// The spot as a safetensors file in memory.
    pub fn to_bytes(&self, plan: &Plan) -> Result<Vec<u8>> {
        self.state.to_bytes_with(plan, Some(format!("last {} class {}", self.last, self.class)))
    }

    /// A spot written by [`to_bytes`](Self::to_bytes), checked against the plan.
    pub fn from_bytes(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let state = State::from_bytes(plan, bytes)?;
        let word = State::word(bytes)?.unwrap_or_default();
        let parts = word.strip_prefix("last ").and_then(|word| word.split_once(" class "));
        let parts = parts.and_then(|(last, class)| Some((last.parse().ok()?, class.parse().ok()?)));
        let (last, class) = parts
            .ok_or_else(|| Error::input("state", "a saved state of a generator", "one without a token"))?;
        Ok(Self { state, last, class })
    }
}

/// A generator or a language model, opened for streams that make tokens. Opening and hearing allocate; [`generate`](Self::generate) does
/// not.
pub struct Generator {
    cpu: Cpu,
    sampler: Sampler,
    first: u64,
    /// Tokens that are said, and classes.
    vocabulary: usize,
    classes: usize,
    /// Of each stream, the token to be taken in next; none where a text has not begun.
    last: Vec<Option<u32>>,
    class: Vec<u32>,
    /// Those tokens, a row's feeds and its logits, of all streams.
    row: Vec<u32>,
    feeds: Vec<Feed>,
    logits: Vec<f32>,
}

impl Generator {
    /// Opens a model; a filter is refused.
    pub fn open(model: &Model, options: GeneratorOptions) -> Result<Self> {
        let (begin, classes) = match &model.config {
            Config::Generator(config) => (Some(SILENCE), config.classes.len().max(1)),
            Config::Language(_) => (None, 1),
            Config::Filter(_) => {
                let expected = "a generator or a language model (process runs a filter)";
                return Err(Error::input("model", expected, model.config.kind()));
            }
        };
        let vocabulary = model.plan.value(model.plan.output).width;
        if begin.is_some_and(|token| token as usize >= vocabulary) {
            let got = format!("a vocabulary of {vocabulary}");
            return Err(Error::input("generator", format!("a token of silence, {SILENCE}"), got));
        }
        let streams = options.streams.max(1);
        Ok(Self {
            cpu: open(model, Limits { max_rows: ROWS, max_streams: streams })?,
            sampler: Sampler::open(options.sampling, options.seed, vocabulary)?,
            first: options.first,
            vocabulary,
            classes,
            last: vec![begin; streams],
            class: vec![0; streams],
            row: vec![0; streams],
            feeds: (0..streams).map(|stream| Feed { stream, rows: 1 }).collect(),
            logits: vec![0.0; streams * vocabulary],
        })
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.last.len()
    }

    /// Tells a stream which of its model's classes to make from now on; class 0 is where it begins.
    pub fn set_class(&mut self, stream: usize, class: usize) -> Result<()> {
        if class >= self.classes {
            return Err(Error::input("class", format!("below {}", self.classes), class.to_string()));
        }
        let Some(place) = self.class.get_mut(stream) else { return Err(Misuse::Stream(stream).into()) };
        *place = class as u32;
        Ok(())
    }

    /// Makes a stream hear tokens, as if it had said them.
    pub fn hear(&mut self, stream: usize, tokens: &[u32]) -> Result<()> {
        self.listen(stream, tokens, |_, _| ())
    }

    /// As [`hear`](Self::hear); what the tokens cost: Σ −ln of the share that each was given before it came, at temperature 1. The first of
    /// a text that has not begun costs nothing.
    pub fn surprise(&mut self, stream: usize, tokens: &[u32]) -> Result<f64> {
        let mut nats = 0.0;
        self.listen(stream, tokens, |logits, token| nats += surprise(logits, token))?;
        Ok(nats)
    }

    /// Hears tokens; `each` gets the logits before a token, and the token.
    fn listen(&mut self, stream: usize, tokens: &[u32], mut each: impl FnMut(&[f32], u32)) -> Result<()> {
        let Some(last) = self.last.get(stream).copied() else { return Err(Misuse::Stream(stream).into()) };
        if let Some(bad) = tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(Misuse::Token(*bad).into());
        }
        let mut heard: Vec<u32> = last.into_iter().chain(tokens.iter().copied()).collect();
        let Some(last) = heard.pop() else { return Ok(()) };
        let mut next = tokens.get(tokens.len() - heard.len()..).unwrap_or_default().iter();
        let of_class = self.class.get(stream).copied().unwrap_or(0) * self.vocabulary as u32;
        heard.iter_mut().for_each(|token| *token += of_class);
        let mut logits = vec![0.0; ROWS.min(heard.len()) * self.vocabulary];
        for chunk in heard.chunks(ROWS) {
            let out = logits.get_mut(..chunk.len() * self.vocabulary).unwrap_or_default();
            self.cpu.advance(&[Feed { stream, rows: chunk.len() }], Rows::Tokens(chunk), out)?;
            out.chunks(self.vocabulary).zip(&mut next).for_each(|(logits, token)| each(logits, *token));
        }
        if let Some(place) = self.last.get_mut(stream) {
            *place = Some(last);
        }
        Ok(())
    }

    /// Goes on: the next tokens of all streams, row after row, those of a row side by side. As many as fit. A stream that has
    /// heard nothing and has nothing to begin with is misuse.
    #[rtsan_standalone::nonblocking]
    pub fn generate(&mut self, tokens: &mut [u32]) -> Result<(), Misuse> {
        if let Some(stream) = self.last.iter().position(Option::is_none) {
            return Err(Misuse::Unbegun(stream));
        }
        for said in tokens.chunks_exact_mut(self.last.len()) {
            let vocabulary = self.vocabulary as u32;
            for ((to, last), class) in self.row.iter_mut().zip(&self.last).zip(&self.class) {
                *to = last.unwrap_or(0) + class * vocabulary;
            }
            self.cpu.advance(&self.feeds, Rows::Tokens(&self.row), &mut self.logits)?;
            let streams = said.iter_mut().zip(&mut self.last).zip(self.logits.chunks(self.vocabulary));
            for (((said, last), logits), stream) in streams.zip(0..) {
                *said = self.sampler.draw(
                    logits,
                    self.first.wrapping_add(stream),
                    self.cpu.position(stream as usize),
                );
                *last = Some(*said);
            }
        }
        Ok(())
    }

    /// Where a stream is; none where a text has not begun.
    pub fn spot(&mut self, stream: usize) -> Option<Spot> {
        let (last, class) = (self.last.get(stream).copied()??, self.class.get(stream).copied()?);
        Some(Spot { state: self.cpu.save(stream), last, class: class as usize })
    }

    /// Goes on from where a stream of this model was.
    pub fn go_to(&mut self, stream: usize, spot: &Spot) -> Result<()> {
        if spot.last as usize >= self.vocabulary {
            return Err(Misuse::Token(spot.last).into());
        }
        self.set_class(stream, spot.class)?;
        self.cpu.restore(stream, &spot.state)?;
        if let Some(last) = self.last.get_mut(stream) {
            *last = Some(spot.last);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
