//! A generator that listens, and answers when whoever is heard stops.
//!
//! ```text
//!            louder than `above`                   quieter by 6 dB: the place is kept
//! quiet ─────────────────────────► hearing ◄──────────────────────────► pausing ──── for `pause` ───► answering
//!   ▲                                 ▲          louder than `above`                                      │
//!   └─── after `longest`, or having ───┴──────────────────── louder than `above` ─────────────────────────┘
//!        fallen silent for `pause`
//! ```
//!
//! Until it answers, the model takes in what is heard, sample by sample (teacher-forced); it answers from where the sound ended, not from the silence
//! after it, and what it has said is what it goes on from when it listens again. An answer ends, too, when the model itself has been louder than
//! `above` and then silent for the pause, as after a word ([`Ending`]). The level is that of the last 20 ms. What is said fades in over 5 ms and ends in its last 10 ms backwards, fading ([`Gap`]). A loudspeaker that the microphone hears would answer to itself: use headphones,
//! or raise `above` beyond what comes back.

use super::gap::Gap;
use super::level::{Ending, Level};
use crate::audio::mu_law::{decode, encode};
use crate::engine::{Generator, GeneratorOptions};
use crate::model::{Config, Model};
use crate::{Error, Result};

/// When a generator answers, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerOptions {
    /// How it is drawn.
    pub generator: GeneratorOptions,
    /// The class of what is said, of those that the model knows.
    pub class: usize,
    /// The level from which on something is heard, in dB of full scale.
    pub above_db: f32,
    /// Seconds of silence after which it answers; and of its own silence after which its answer is over.
    pub pause_s: f64,
    /// Seconds of the longest answer.
    pub longest_s: f64,
}

impl AnswerOptions {
    /// As the model's configuration draws, above −40 dB, after half a second, for ten at most.
    pub fn of(model: &Model) -> Self {
        Self {
            generator: GeneratorOptions::of(model),
            class: 0,
            above_db: -40.0,
            pause_s: 0.5,
            longest_s: 10.0,
        }
    }
}

/// What a generator that answers is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It waits for something to hear.
    Listening,
    /// It hears something, or waits whether the silence after it lasts.
    Hearing,
    /// It speaks.
    Answering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been heard since the last answer.
    Quiet,
    Hearing,
    /// Silence, for so many samples.
    Pausing(usize),
    /// So many samples have been said.
    Answering(usize),
}

/// A generator of one channel, and whether it listens.
pub(super) struct Answerer {
    generator: Generator,
    state: State,
    /// Of what it hears.
    level: Level,
    /// Of what it says.
    ending: Ending,
    pause: usize,
    longest: usize,
    gap: Gap,
    tokens: Vec<u32>,
}

impl Answerer {
    /// Opens a generator of sound for so many rows at once.
    pub(super) fn open(model: &Model, options: AnswerOptions, rows: usize) -> Result<Self> {
        let Config::Generator(config) = &model.config else {
            return Err(Error::input("model", "a generator of sound, to answer", model.config.kind()));
        };
        config.of_mu_law()?;
        let rate = f64::from(config.rate);
        for (what, value, range) in [
            ("above", f64::from(options.above_db), -100.0..=0.0),
            ("pause", options.pause_s, 0.02..=60.0),
            ("longest", options.longest_s, 0.1..=3_600.0),
        ] {
            if !range.contains(&value) {
                let expected = format!("{} to {}", range.start(), range.end());
                return Err(Error::input(what, expected, value.to_string()));
            }
        }
        let generator = GeneratorOptions { streams: 1, live: true, ..options.generator };
        let mut generator = Generator::open(model, generator)?;
        generator.set_class(0, options.class)?;
        // Runs once, so that the first answer finds the weights near.
        generator.keep(0);
        generator.generate(&mut [0; 64])?;
        generator.go_back(0);
        let level = || Level::new(rate, options.above_db);
        let pause = (options.pause_s * rate) as usize;
        Ok(Self {
            generator,
            state: State::Quiet,
            level: level(),
            ending: Ending::new(level(), pause),
            pause,
            longest: (options.longest_s * rate) as usize,
            gap: Gap::new(config.rate, 1),
            tokens: vec![0; rows],
        })
    }

    /// What it is at.
    pub(super) fn mood(&self) -> Mood {
        match self.state {
            State::Quiet => Mood::Listening,
            State::Hearing | State::Pausing(_) => Mood::Hearing,
            State::Answering(_) => Mood::Answering,
        }
    }

    /// Hears so many samples, and says as many.
    pub(super) fn advance(&mut self, input: &[f32], output: &mut [f32]) {
        let mut from = 0;
        while from < input.len() {
            let before = self.state;
            let rest = input.get(from..).unwrap_or_default();
            let count = self.until_change(rest);
            let said = output.get_mut(from..from + count).unwrap_or_default();
            match before {
                State::Answering(_) => self.say(said),
                _ => self.hear(rest.get(..count).unwrap_or_default(), said),
            }
            match (before, self.state) {
                (State::Hearing, State::Pausing(_)) => self.generator.keep(0),
                (State::Pausing(_), State::Answering(_)) => {
                    self.generator.go_back(0);
                    self.ending.begin();
                }
                (State::Answering(_), State::Answering(said))
                    if self.ending.is_due(said) && self.ending.is_over() =>
                {
                    self.state = State::Quiet;
                }
                _ => {}
            }
            from += count;
        }
    }

    /// Follows the level until the state changes its kind, or what was said is to be judged: how many samples that takes, 1 at least.
    fn until_change(&mut self, input: &[f32]) -> usize {
        let kind = std::mem::discriminant(&self.state);
        for (n, x) in input.iter().enumerate() {
            self.level.see(*x);
            let (loud, silent) = (self.level.is_loud(), self.level.is_silent());
            self.state = match self.state {
                _ if loud => State::Hearing,
                State::Hearing if silent => State::Pausing(0),
                State::Pausing(since) if since + 1 >= self.pause => State::Answering(0),
                State::Pausing(since) => State::Pausing(since + 1),
                State::Answering(said) if said + 1 >= self.longest => State::Quiet,
                State::Answering(said) => State::Answering(said + 1),
                other => other,
            };
            let judged = matches!(self.state, State::Answering(said) if self.ending.is_due(said));
            if judged || std::mem::discriminant(&self.state) != kind {
                return n + 1;
            }
        }
        input.len()
    }

    fn hear(&mut self, input: &[f32], output: &mut [f32]) {
        let tokens = self.tokens.get_mut(..input.len()).unwrap_or_default();
        tokens.iter_mut().zip(input).for_each(|(token, x)| *token = encode(*x));
        // Tokens are of the vocabulary; were one not, it would be left out.
        let _ = self.generator.hear(0, tokens);
        self.gap.bridge(output);
    }

    fn say(&mut self, output: &mut [f32]) {
        let tokens = self.tokens.get_mut(..output.len()).unwrap_or_default();
        if self.generator.generate(tokens).is_err() {
            tokens.fill(encode(0.0));
        }
        for (y, token) in output.iter_mut().zip(tokens) {
            *y = decode(*token);
            self.ending.see(*y);
        }
        self.gap.join(output);
    }
}
