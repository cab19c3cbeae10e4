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
use crate::model::{Config, Model, check_guidance};
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
    /// How far the class leads: logits are u + g·(c − u), with c those of the class and u those of no class, which a stream beside each
    /// gives from the same tokens (Ho & Salimans 2022, arXiv 2207.12598, with g = 1 + w). 1 is the class alone; other values take a model
    /// that knows sound without a class, and twice the time.
    pub guidance: f32,
    /// Whether streams are told to [`keep`](Generator::keep) places and to hear without allocating, at the price of memory.
    pub live: bool,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self { sampling: Sampling::default(), seed: 0, streams: 1, first: 0, guidance: 1.0, live: false }
    }
}

impl GeneratorOptions {
    /// One stream, drawn as the model's configuration says.
    pub fn of(model: &Model) -> Self {
        let Config::Generator(config) = &model.config else { return Self::default() };
        Self { sampling: config.draw.sampling(), guidance: config.draw.guidance, ..Self::default() }
    }

    /// One line for the first number that is out of range, or that says nothing to the model.
    pub fn check(&self, model: &Model) -> Result<()> {
        self.sampling.check()?;
        check_guidance(self.guidance, nameless(model).is_some())
            .map_err(|expected| Error::input("guidance", expected, self.guidance.to_string()))
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
    /// The state beside it that has no class, of a guided stream.
    pub beside: Option<State>,
}

impl Spot {
    /// The spot as a safetensors file in memory.
    pub fn to_bytes(&self, plan: &Plan) -> Result<Vec<u8>> {
        let beside = if self.beside.is_some() { " beside" } else { "" };
        let word = format!("last {} class {}{beside}", self.last, self.class);
        let states: Vec<&State> = std::iter::once(&self.state).chain(&self.beside).collect();
        State::all_to_bytes(&states, plan, Some(word))
    }

    /// A spot written by [`to_bytes`](Self::to_bytes), checked against the plan.
    pub fn from_bytes(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let word = State::word(bytes)?.unwrap_or_default();
        let (last, class, guided) = match *word.split(' ').collect::<Vec<_>>() {
            ["last", last, "class", class] => (last.parse().ok(), class.parse().ok(), false),
            ["last", last, "class", class, "beside"] => (last.parse().ok(), class.parse().ok(), true),
            _ => (None, None, false),
        };
        let (Some(last), Some(class)) = (last, class) else {
            return Err(Error::input("state", "a saved state of a generator", "one without a token"));
        };
        let mut states = State::all_from_bytes(plan, bytes, 1 + usize::from(guided))?.into_iter();
        let state = states.next().ok_or_else(|| Error::input("state", "one", "none"))?;
        Ok(Self { state, last, class, beside: states.next() })
    }
}

/// The class without a name, of a model that knows sound without one.
fn nameless(model: &Model) -> Option<u32> {
    match &model.config {
        Config::Generator(config) if config.nameless => Some(config.classes.len() as u32),
        _ => None,
    }
}

/// A generator or a language model, opened for streams that make tokens. Opening and hearing allocate (hearing not, if it is opened for live sound);
/// [`generate`](Self::generate) does not.
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
    /// How far classes lead, and the class without a name, where streams are guided: then each has one beside it, behind all others.
    guidance: Option<(f32, u32)>,
    /// Where streams were told to go back to.
    kept: Vec<Option<u32>>,
    /// Those tokens, a row's feeds and its logits, of all streams; tokens that are heard.
    row: Vec<u32>,
    heard: Vec<u32>,
    feeds: Vec<Feed>,
    logits: Vec<f32>,
}

impl Generator {
    /// Opens a model; a filter is refused.
    pub fn open(model: &Model, options: GeneratorOptions) -> Result<Self> {
        let (begin, classes) = match &model.config {
            Config::Generator(config) => (Some(SILENCE), config.class_count().max(1)),
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
        options.check(model)?;
        let guided = options.guidance != 1.0;
        let guidance = nameless(model).filter(|_| guided).map(|class| (options.guidance, class));
        let streams = options.streams.max(1);
        let all = if guided { 2 * streams } else { streams };
        let (places, rows) = if options.live { (2 * all, all.max(ROWS)) } else { (all, all) };
        Ok(Self {
            cpu: open(model, Limits { max_rows: ROWS, max_streams: places })?,
            sampler: Sampler::open(options.sampling, options.seed, vocabulary)?,
            first: options.first,
            vocabulary,
            classes,
            last: vec![begin; streams],
            class: vec![0; streams],
            guidance,
            kept: vec![None; if options.live { streams } else { 0 }],
            row: vec![0; all],
            heard: vec![0; ROWS],
            feeds: (0..all).map(|stream| Feed { stream, rows: 1 }).collect(),
            logits: vec![0.0; rows * vocabulary],
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
    pub fn hear(&mut self, stream: usize, tokens: &[u32]) -> Result<(), Misuse> {
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
    fn listen(
        &mut self,
        stream: usize,
        tokens: &[u32],
        mut each: impl FnMut(&[f32], u32),
    ) -> Result<(), Misuse> {
        if let Some(bad) = tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(Misuse::Token(*bad));
        }
        let own = (stream, self.class.get(stream).copied().ok_or(Misuse::Stream(stream))?);
        let beside = self.guidance.map(|(_, nameless)| (stream + self.last.len(), nameless));
        // A text begins with what it hears first.
        let begun = self.last.get(stream).is_some_and(Option::is_some);
        let (first, tokens) = tokens.split_at(tokens.len().min(usize::from(!begun)));
        self.move_on(stream, first);
        let rows = ROWS.min(tokens.len()) * self.vocabulary;
        if self.logits.len() < rows {
            self.logits.resize(rows, 0.0);
        }
        for next in tokens.chunks(ROWS) {
            let last = self.last.get(stream).copied().flatten();
            let out = self.logits.get_mut(..next.len() * self.vocabulary).unwrap_or_default();
            // The class's own logits are the last that are written.
            for (stream, class) in beside.into_iter().chain([own]) {
                let heard = self.heard.get_mut(..next.len()).unwrap_or_default();
                let before = last.iter().chain(next);
                heard
                    .iter_mut()
                    .zip(before)
                    .for_each(|(to, token)| *to = token + class * self.vocabulary as u32);
                self.cpu.advance(&[Feed { stream, rows: heard.len() }], Rows::Tokens(heard), out)?;
            }
            out.chunks(self.vocabulary).zip(next).for_each(|(logits, token)| each(logits, *token));
            self.move_on(stream, next);
        }
        Ok(())
    }

    /// What a stream has heard or said last is the last of these, if there is one.
    fn move_on(&mut self, stream: usize, tokens: &[u32]) {
        if let (Some(place), Some(last)) = (self.last.get_mut(stream), tokens.last()) {
            *place = Some(*last);
        }
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
            let (own, beside) = self.row.split_at_mut(self.last.len());
            for ((to, last), class) in own.iter_mut().zip(&self.last).zip(&self.class) {
                *to = last.unwrap_or(0) + class * vocabulary;
            }
            for (to, last) in beside.iter_mut().zip(&self.last) {
                *to = last.unwrap_or(0) + self.guidance.map_or(0, |(_, class)| class) * vocabulary;
            }
            let logits = self.logits.get_mut(..self.row.len() * self.vocabulary).unwrap_or_default();
            self.cpu.advance(&self.feeds, Rows::Tokens(&self.row), logits)?;
            if let Some((by, _)) = self.guidance {
                let (own, beside) = logits.split_at_mut(self.last.len() * self.vocabulary);
                own.iter_mut().zip(beside).for_each(|(c, u)| *c = *u + by * (*c - *u));
            }
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

    /// Remembers where a stream is, if the generator is opened for live sound. Does not allocate.
    pub fn keep(&mut self, stream: usize) {
        self.copy(stream, |all, stream| (stream, all + stream));
        if let (Some(kept), Some(last)) = (self.kept.get_mut(stream), self.last.get(stream)) {
            *kept = *last;
        }
    }

    /// Puts a stream back to where it was told to [`keep`](Self::keep).
    pub fn go_back(&mut self, stream: usize) {
        self.copy(stream, |all, stream| (all + stream, stream));
        if let (Some(kept), Some(last)) = (self.kept.get(stream), self.last.get_mut(stream)) {
            *last = *kept;
        }
    }

    /// Copies a stream's state and that of the one beside it, if there are places for both.
    fn copy(&mut self, stream: usize, way: fn(usize, usize) -> (usize, usize)) {
        if stream < self.kept.len() {
            let all = self.row.len();
            for stream in (stream..all).step_by(self.last.len()) {
                let (from, to) = way(all, stream);
                self.cpu.copy(from, to);
            }
        }
    }

    /// Where a stream is; none where a text has not begun.
    pub fn spot(&mut self, stream: usize) -> Option<Spot> {
        let (last, class) = (self.last.get(stream).copied()??, self.class.get(stream).copied()?);
        let beside = self.guidance.map(|_| self.cpu.save(stream + self.last.len()));
        Some(Spot { state: self.cpu.save(stream), last, class: class as usize, beside })
    }

    /// Goes on from where a stream of this model was.
    pub fn go_to(&mut self, stream: usize, spot: &Spot) -> Result<()> {
        if spot.last as usize >= self.vocabulary {
            return Err(Misuse::Token(spot.last).into());
        }
        let of = |guided: bool| {
            if guided { "one of a guided stream" } else { "one of a stream without guidance (1)" }
        };
        if spot.beside.is_some() != self.guidance.is_some() {
            return Err(Error::input("state", of(self.guidance.is_some()), of(spot.beside.is_some())));
        }
        // Nothing moves unless all of it fits.
        let plan = self.cpu.plan();
        spot.beside.iter().chain([&spot.state]).try_for_each(|state| state.check(plan))?;
        self.set_class(stream, spot.class)?;
        self.cpu.restore(stream, &spot.state)?;
        if let Some(beside) = &spot.beside {
            self.cpu.restore(stream + self.last.len(), beside)?;
        }
        if let Some(last) = self.last.get_mut(stream) {
            *last = Some(spot.last);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
