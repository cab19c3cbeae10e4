//! Windows of clips: example i is a function of (seed, i, clips, spec).
//!
//! Example i is place s = i mod batch of step t = ⌊i/batch⌋, and with W `windows` it is window t mod W of visit ⌊t/W⌋ of that place.
//! A visit draws its clip, where in it it begins, gain and speed; its windows follow each other without a gap. A clip shorter than a
//! visit begins at its beginning, and silence follows it; else the visit lies anywhere within the clip. A clip is drawn with its length
//! as weight, or a visit's where that is longer, so that every sample is heard about equally often; with `nameless`, that share of the visits
//! is of clips without a class. With `forget`, that share of them hides the class: what guidance (see
//! [`GeneratorOptions`](crate::engine::GeneratorOptions)) leads away from.
//!
//! ```
//! use cascabel::train::examples::Maker;
//! use cascabel::train::task::generator::{Clip, Clips, ClipsSpec, Windows};
//! let hum = (0..9000).map(|t| (t as f32 * 0.05).sin()).collect();
//! let clips = Clips::new(8000, vec![Clip::new(hum, 0, false)])?;
//! let spec = ClipsSpec { seconds: 0.25, windows: 2, ..ClipsSpec::default() };
//! let mut windows = Windows::new(&spec, 1, 4, clips, None);
//! let (first, second) = (windows.make(0), windows.make(4)); // of a batch of 4: the same place, a step later
//! assert_eq!((first.heard.len(), &first.heard[1..]), (2000, &first.wanted[..1999]));
//! assert_eq!(second.heard[0], first.wanted[1999]);
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clips::{Clip, Clips};
use crate::audio::mu_law::{LEVELS, SILENCE, encode};
use crate::train::begins::Course;
use crate::train::examples::{Maker, Pair};
use crate::train::random::Dice;
use crate::train::speed;
use crate::{Error, Result};

/// The longest visit, seconds.
const LONGEST: f64 = 3600.0;

/// How a generator's examples are made of clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipsSpec {
    /// Length of a window, an example, in seconds.
    pub seconds: f32,
    /// How many windows of a clip follow one another, a step each. The state goes from one to the next and no gradient goes back:
    /// truncated back-propagation. With 1 every window begins at zeros.
    pub windows: u64,
    /// Gain of a visit, least and greatest, dB.
    pub gain_db: [f32; 2],
    /// How many times as fast a visit is played, least and greatest, log-uniform: other voices.
    pub speed: [f32; 2],
    /// The share of visits whose class is hidden, of a model that knows sound without one.
    pub forget: f32,
    /// The share of visits that clips without a class are given; as their length says without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameless: Option<f32>,
    /// Validation hears at most so many seconds of a clip.
    pub valid_seconds: f32,
}

impl Default for ClipsSpec {
    fn default() -> Self {
        Self {
            seconds: 1.0,
            windows: 1,
            gain_db: [0.0; 2],
            speed: [1.0; 2],
            forget: 0.0,
            nameless: None,
            valid_seconds: 30.0,
        }
    }
}

impl ClipsSpec {
    /// Refuses what makes no windows of sound at `rate` Hz; `nameless` says whether the model knows sound without a class.
    pub fn check(&self, rate: u32, nameless: bool) -> Result<()> {
        let refuse = |what: &str, expected: String, got: String| {
            Err(Error::input(format!("recipe [clips] {what}"), expected, got))
        };
        let visit = f64::from(self.seconds) * self.windows as f64;
        if self.rows(rate) == 0 || !(visit > 0.0 && visit <= LONGEST) {
            let expected = format!("a sample at least, and windows of {LONGEST} s at most together");
            return refuse("seconds", expected, format!("{} of {} s", self.windows, self.seconds));
        }
        for (what, [low, high], bounds) in
            [("gain_db", self.gain_db, -60.0..=20.0), ("speed", self.speed, 0.25..=4.0)]
        {
            if !(low <= high && bounds.contains(&low) && bounds.contains(&high)) {
                let expected = format!("[least, greatest] within {} to {}", bounds.start(), bounds.end());
                return refuse(what, expected, format!("[{low}, {high}]"));
            }
        }
        for (what, share) in [("forget", self.forget), ("nameless", self.nameless.unwrap_or(0.0))] {
            if !(0.0..=1.0).contains(&share) || (share > 0.0 && !nameless) {
                let expected = "a share of 0 to 1, above 0 only where the model is nameless too";
                return refuse(what, expected.into(), share.to_string());
            }
        }
        if !(self.valid_seconds > 0.0 && self.valid_seconds.is_finite()) {
            return refuse("valid_seconds", "a number above 0".into(), self.valid_seconds.to_string());
        }
        Ok(())
    }

    /// Samples of a window.
    pub fn rows(&self, rate: u32) -> usize {
        (f64::from(self.seconds) * f64::from(rate)).round() as usize
    }

    /// Which example of batches of so many begins where.
    pub fn course(&self, batch: usize) -> Course {
        Course::Windows { batch: batch as u64, windows: self.windows }
    }

    /// Whether what is heard is not the clips as they are.
    pub fn varies(&self) -> bool {
        self.gain_db != [0.0; 2] || self.speed != [1.0; 2]
    }
}

/// Makes windows.
#[derive(Clone)]
pub struct Windows {
    spec: ClipsSpec,
    seed: u64,
    batch: u64,
    len: usize,
    clips: Arc<Clips>,
    /// Sums of the clips' weights, up to each: of all, or where they have shares of their own of those with a class and those without.
    weights: Arc<[Vec<usize>; 2]>,
    /// The class without a name, where there is one.
    nameless: Option<u32>,
}

/// What a visit drew.
struct Visit<'a> {
    clip: &'a Clip,
    class: u32,
    /// The sample that it begins at.
    from: usize,
    gain: f32,
    speed: f32,
}

impl Windows {
    /// Windows of these clips for batches of so many; `spec` has been checked. `nameless` is the class of clips without one.
    pub fn new(spec: &ClipsSpec, seed: u64, batch: usize, clips: Clips, nameless: Option<u32>) -> Self {
        let len = spec.rows(clips.rate());
        let whole = len * spec.windows as usize;
        let apart = |clip: &Clip| spec.nameless.is_some() && Some(clip.class()) == nameless;
        let weights = [false, true].map(|of| {
            let grow = |sum: &mut usize, clip: &Clip| {
                *sum += if clip.is_empty() || apart(clip) != of { 0 } else { clip.len().max(whole) };
                Some(*sum)
            };
            clips.all().iter().scan(0, grow).collect()
        });
        let (clips, weights) = (Arc::new(clips), Arc::new(weights));
        Self { spec: spec.clone(), seed, batch: batch.max(1) as u64, len, clips, weights, nameless }
    }

    /// Which example begins where.
    pub fn course(&self) -> Course {
        self.spec.course(self.batch as usize)
    }

    /// The visit that example `index` is of, and which of its windows that is.
    fn visit(&self, index: u64) -> (Visit<'_>, usize) {
        let (step, place) = (index / self.batch, index % self.batch);
        let (visit, window) = (step / self.spec.windows, step % self.spec.windows);
        let mut dice = Dice::new(self.seed, visit * self.batch + place);
        let [named, without] = &*self.weights;
        let all = |weights: &[usize]| weights.last().copied().unwrap_or(0);
        let apart = self.spec.nameless.is_some_and(|share| dice.unit() < f64::from(share));
        // A share of what is not there goes to what is.
        let weights = if all(without) > 0 && (apart || all(named) == 0) { without } else { named };
        let at = dice.below(all(weights));
        let clip = &self.clips.all()[weights.partition_point(|sum| *sum <= at)];
        let (place, [quiet, loud], [slow, fast]) = (dice.unit(), self.spec.gain_db, self.spec.speed);
        let gain = 10f32.powf(dice.uniform(quiet, loud) / 20.0);
        let speed = if slow == fast { slow } else { dice.log_uniform(slow, fast) };
        let span = ((self.len as u64 * self.spec.windows) as f64 * f64::from(speed)).ceil() as usize;
        let from = (place * (clip.len().saturating_sub(span) + 1) as f64) as usize;
        let hidden =
            self.nameless.filter(|_| self.spec.forget > 0.0 && dice.unit() < f64::from(self.spec.forget));
        let class = hidden.unwrap_or(clip.class());
        (Visit { clip, class, from, gain, speed }, window as usize)
    }

    /// The token before a window, and those of the window.
    fn tokens(&self, visit: &Visit<'_>, window: usize) -> Vec<u32> {
        let Visit { clip, from, gain, speed, .. } = *visit;
        let first = window * self.len;
        if speed == 1.0 {
            return (0..=self.len).map(|t| clip.token((from + first + t).checked_sub(1), gain)).collect();
        }
        // The visit from its beginning, for a window may begin between two samples; played, a sample comes DELAY earlier.
        let mut source = vec![0.0; speed::needed(first + self.len + 1, speed)];
        for (i, x) in source.iter_mut().enumerate() {
            *x = clip.sample((from + i).checked_sub(1 + speed::DELAY));
        }
        let mut played = vec![0.0; first + self.len + 1];
        speed::play(&source, speed, &mut played);
        let mut tokens: Vec<u32> = played[first..].iter().map(|x| encode(gain * x)).collect();
        if from + first == 0 {
            // The filter rings before the first sample, of which nobody has heard yet.
            tokens[0] = SILENCE;
        }
        tokens
    }
}

impl Maker for Windows {
    type Row = u32;

    fn rows(&self) -> usize {
        self.len
    }

    fn make(&mut self, index: u64) -> Pair<u32> {
        let (visit, window) = self.visit(index);
        let tokens = self.tokens(&visit, window);
        let of_class = visit.class * LEVELS as u32;
        let heard = tokens.iter().take(self.len).map(|token| token + of_class).collect();
        Pair { heard, wanted: tokens.into_iter().skip(1).collect() }
    }
}
