//! Training examples mixed on the fly from clean speech and noise: example i is a function of (seed, i, clips, spec).
//!
//! ```text
//! speech ─ clips of one source, pauses, speed ─ tone ─ room ─────┬─ wet ──┐
//!                                                                └─ clean ├─ band limit ─ SNR ─ level ─► noisy, clean
//! noise ── none, one or two: clips, synthetic, babble ─ speed, swell, tone, room ──┘
//! ```
//!
//! SNR is the power of the wet speech while it is active over that of the noise, uniform in dB. The level is the
//! mixture's RMS, uniform in dB of full scale and then lowered, if need be, until noisy and clean peak at 0.99 at
//! most. Now and then both begin late. The clean sound has the tone, the band and the early part of the room (see [`super::reverb`]) of the noisy
//! one: what is asked of the model is to take the noise and the late reverberation away, and nothing else.
//!
//! ```
//! use std::sync::Arc;
//! use cascabel::train::{corpus::Corpus, mix::{MixSpec, Mixer}};
//! let hum: Vec<f32> = (0..9000).map(|t| (t as f32 * 0.05).sin()).collect();
//! let speech = Arc::new(Corpus::from_clips([("ada".to_string(), hum)])?);
//! let mut mixer = Mixer::new(&MixSpec { seconds: 0.5, ..MixSpec::default() }, 16000, 1, speech, None)?;
//! let example = mixer.example(0);
//! assert_eq!((example.noisy.len(), example.clean.len()), (8000, 8000));
//! assert_eq!(example, mixer.example(0));
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::{active_power, band_limit, cascade, fade, power, swell, tone};
use super::corpus::Corpus;
use super::examples::{Maker, Pair};
use super::noises::Kind;
use super::random::Dice;
use super::reverb::{Convolver, Room};
use super::speed;
use crate::error::{Error, Result};

/// The highest peak of an example.
const PEAK: f32 = 0.99;
/// Tone filters of speech raise and lower by at most so many dB.
const SPEECH_TONE_DB: f32 = 6.0;
/// How many voices a babble has, at least and at most.
const BABBLE: [usize; 2] = [4, 8];
/// Below this power a sound is silence.
const SILENCE: f64 = 1e-14;

/// How examples are made; chances are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixSpec {
    /// Length of an example, seconds.
    pub seconds: f32,
    /// SNR, least and greatest, dB.
    pub snr_db: [f32; 2],
    /// RMS of the mixture, least and greatest, dB of full scale.
    pub level_db: [f32; 2],
    /// The longest pause before, between and after clips, seconds.
    pub pause: f32,
    /// Chance of clean speech alone.
    pub no_noise: f32,
    /// Chance of noise alone, whose clean sound is silence.
    pub no_speech: f32,
    /// Chance that the noise is synthetic, of any [`Kind`]; certain where there are no noise clips.
    pub synthetic: f32,
    /// Chance that the noise is a babble of four to eight voices, where it is not synthetic.
    pub babble: f32,
    /// Chance of a second noise over the first.
    pub second_noise: f32,
    /// How many times as fast speech is played, least and greatest, log-uniform: other voices.
    pub speech_speed: [f32; 2],
    /// The same of recorded noise, which also runs backwards in half of the cases where this is not [1, 1].
    pub noise_speed: [f32; 2],
    /// Chance that a noise's level wanders, by up to 20 dB within seconds.
    pub swell: f32,
    /// Chance of a tone filter, for speech (by up to ±6 dB a section) and for noise.
    pub tone: f32,
    /// How far a noise's tone filter goes, ± dB a section.
    pub noise_tone_db: f32,
    /// Chance of a band limit between 3 kHz and nine tenths of half the rate.
    pub band_limit: f32,
    /// Chance of a room for the speech.
    pub reverb: f32,
    /// Chance of a room for the noise: another one.
    pub noise_reverb: f32,
    /// T60 of a room, least and greatest, seconds.
    pub t60: [f32; 2],
    /// How much of the room's response the clean sound keeps, seconds; 0 asks for the dry sound.
    pub early: f32,
    /// Chance that the mixture, not the clean sound, is clipped at 0.3 to 0.9 of its peak.
    pub clip: f32,
    /// Chance that both sounds begin late: after silence or a faint hiss of up to three quarters of the example.
    pub late: f32,
}

impl Default for MixSpec {
    fn default() -> Self {
        Self {
            seconds: 4.0,
            snr_db: [-8.0, 25.0],
            level_db: [-45.0, -5.0],
            pause: 0.8,
            no_noise: 0.03,
            no_speech: 0.03,
            synthetic: 0.1,
            babble: 0.0,
            second_noise: 0.25,
            speech_speed: [1.0, 1.0],
            noise_speed: [1.0, 1.0],
            swell: 0.0,
            tone: 0.5,
            noise_tone_db: 6.0,
            band_limit: 0.1,
            reverb: 0.3,
            noise_reverb: 0.0,
            t60: [0.15, 0.8],
            early: 0.05,
            clip: 0.0,
            late: 0.0,
        }
    }
}

impl MixSpec {
    /// Speech and recorded noise at a random SNR and level, and nothing else.
    pub fn plain() -> Self {
        let never = 0.0;
        Self {
            no_noise: never,
            no_speech: never,
            synthetic: never,
            second_noise: never,
            tone: never,
            band_limit: never,
            reverb: never,
            ..Self::default()
        }
    }

    fn check(&self, rate: u32) -> Result<()> {
        let wrong = |what: &str, expected: &str, got: String| Err(Error::input(what, expected, got));
        if !(4000..=384_000).contains(&rate) {
            return wrong("rate of the examples", "4000 to 384000 Hz", rate.to_string());
        }
        if !(0.01..=600.0).contains(&self.seconds) {
            return wrong("length of an example", "0.01 to 600 s", self.seconds.to_string());
        }
        for (what, [low, high], bounds) in [
            ("snr_db", self.snr_db, -100.0..=100.0),
            ("level_db", self.level_db, -120.0..=0.0),
            ("t60", self.t60, 0.01..=5.0),
            ("speech_speed", self.speech_speed, 0.25..=4.0),
            ("noise_speed", self.noise_speed, 0.25..=4.0),
        ] {
            if !(low <= high && bounds.contains(&low) && bounds.contains(&high)) {
                let expected = format!("[least, greatest] within {} to {}", bounds.start(), bounds.end());
                return wrong(what, &expected, format!("[{low}, {high}]"));
            }
        }
        for (what, chance) in [
            ("no_noise", self.no_noise),
            ("no_speech", self.no_speech),
            ("synthetic", self.synthetic),
            ("babble", self.babble),
            ("second_noise", self.second_noise),
            ("swell", self.swell),
            ("tone", self.tone),
            ("band_limit", self.band_limit),
            ("reverb", self.reverb),
            ("noise_reverb", self.noise_reverb),
            ("clip", self.clip),
            ("late", self.late),
            ("early, in seconds", self.early),
        ] {
            if !(0.0..=1.0).contains(&chance) {
                return wrong(what, "0 to 1", chance.to_string());
            }
        }
        if !(0.0..=40.0).contains(&self.noise_tone_db) {
            return wrong("noise_tone_db", "0 to 40 dB", self.noise_tone_db.to_string());
        }
        if !(0.0..=60.0).contains(&self.pause) {
            return wrong("pause", "0 to 60 s", self.pause.to_string());
        }
        Ok(())
    }
}

/// A training example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What the model hears.
    pub noisy: Vec<f32>,
    /// What it should give.
    pub clean: Vec<f32>,
    /// The SNR drawn, dB; none without speech or without noise.
    pub snr_db: Option<f32>,
}

/// Makes examples; a clone shares the clips and makes the same ones, so each thread can have its own.
#[derive(Clone)]
pub struct Mixer {
    spec: MixSpec,
    rate: f32,
    len: usize,
    seed: u64,
    speech: Arc<Corpus>,
    noise: Option<Arc<Corpus>>,
    convolver: Convolver,
}

impl Mixer {
    /// Checks `spec` and plans for clips at `rate` Hz.
    pub fn new(
        spec: &MixSpec,
        rate: u32,
        seed: u64,
        speech: Arc<Corpus>,
        noise: Option<Arc<Corpus>>,
    ) -> Result<Self> {
        spec.check(rate)?;
        let rate = rate as f32;
        let len = (spec.seconds * rate).round() as usize;
        let convolver = Convolver::new(len, (spec.t60[1] * rate) as usize + 1);
        Ok(Self { spec: spec.clone(), rate, len, seed, speech, noise, convolver })
    }

    /// Example `index`.
    pub fn example(&mut self, index: u64) -> Example {
        let mut dice = Dice::new(self.seed, index);
        let (hushed, bare) = (dice.chance(self.spec.no_speech), dice.chance(self.spec.no_noise));
        let (mut wet, mut clean) =
            if hushed { (vec![0.0; self.len], vec![0.0; self.len]) } else { self.voice(&mut dice) };
        let mut noise = if bare && !hushed { vec![0.0; self.len] } else { self.noise(&mut dice) };
        if dice.chance(self.spec.band_limit) {
            let hz = dice.log_uniform(3000f32.min(0.4 * self.rate), 0.45 * self.rate);
            let sections = band_limit(hz, self.rate);
            [&mut wet, &mut clean, &mut noise].into_iter().for_each(|sound| cascade(&sections, sound));
        }
        let drawn = dice.uniform(self.spec.snr_db[0], self.spec.snr_db[1]);
        let (voice, other) = (active_power(&wet, self.rate), power(&noise));
        let snr_db = (voice > SILENCE && other > SILENCE).then_some(drawn);
        if let Some(snr_db) = snr_db {
            let gain = (voice / other / 10f64.powf(f64::from(snr_db) / 10.0)).sqrt() as f32;
            noise.iter_mut().for_each(|n| *n *= gain);
        }
        let mut noisy = wet;
        noisy.iter_mut().zip(&noise).for_each(|(x, n)| *x += n);
        self.level(&mut dice, &mut noisy, &mut clean);
        if dice.chance(self.spec.late) {
            late(&mut dice, &mut noisy, &mut clean);
        }
        Example { noisy, clean, snr_db }
    }

    /// Sets the level of both sounds, and clips the first now and then.
    fn level(&self, dice: &mut Dice, noisy: &mut [f32], clean: &mut [f32]) {
        let level = dice.uniform(self.spec.level_db[0], self.spec.level_db[1]);
        let (rms, peak) = (power(noisy).sqrt() as f32, peak(noisy).max(peak(clean)));
        if f64::from(rms) > SILENCE.sqrt() {
            let gain = (10f32.powf(level / 20.0) / rms).min(PEAK / peak);
            noisy.iter_mut().chain(clean.iter_mut()).for_each(|x| *x *= gain);
        }
        if dice.chance(self.spec.clip) {
            let most = self::peak(noisy) * dice.uniform(0.3, 0.9);
            noisy.iter_mut().for_each(|x| *x = x.clamp(-most, most));
        }
    }

    /// Speech through its tone and room: wet, and what of it is clean.
    fn voice(&mut self, dice: &mut Dice) -> (Vec<f32>, Vec<f32>) {
        let mut dry = self.speech(dice);
        if dice.chance(self.spec.tone) {
            cascade(&tone(dice, self.rate, SPEECH_TONE_DB), &mut dry);
        }
        if !dice.chance(self.spec.reverb) {
            return (dry.clone(), dry);
        }
        let t60 = dice.uniform(self.spec.t60[0], self.spec.t60[1]);
        let room = Room::random(dice, self.rate, t60, self.spec.early);
        let [wet, clean] = self.convolver.run(&dry, [&room.wet, &room.target]);
        (wet, clean)
    }

    /// Clips of one source with pauses between them, at one speed.
    fn speech(&self, dice: &mut Dice) -> Vec<f32> {
        at_speed(self.spec.speech_speed, self.len, dice, |dice, out| self.clips(dice, out))
    }

    /// Clips of one source with pauses between them, until the segment is full.
    fn clips(&self, dice: &mut Dice, out: &mut [f32]) {
        let mut clip = self.speech.any(dice);
        let mut at = self.pause(dice);
        while at < out.len() {
            let len = self.speech.clip_len(clip);
            let left = out.len() - at;
            // A clip that doesn't fit is heard from anywhere, one that does from its start.
            let from = dice.below(len.saturating_sub(left) + 1);
            let to = &mut out[at..at + left.min(len - from)];
            self.speech.copy(clip, from, to);
            fade(to, (0.005 * self.rate) as usize);
            at += to.len() + self.pause(dice);
            clip = self.speech.sibling(clip, dice);
        }
    }

    /// None in half of the cases, else up to the longest.
    fn pause(&self, dice: &mut Dice) -> usize {
        let seconds = if dice.chance(0.5) { 0.0 } else { dice.uniform(0.0, self.spec.pause) };
        ((seconds * self.rate) as usize).min(self.len / 2)
    }

    /// One noise, or two with the second up to 10 dB below the first; perhaps in a room.
    fn noise(&mut self, dice: &mut Dice) -> Vec<f32> {
        let mut noise = self.one_noise(dice);
        if dice.chance(self.spec.second_noise) {
            let second = self.one_noise(dice);
            let (a, b) = (power(&noise), power(&second));
            let gain = if b > SILENCE && a > SILENCE { (a / b).sqrt() as f32 } else { 1.0 };
            let gain = gain * 10f32.powf(dice.uniform(-10.0, 0.0) / 20.0);
            noise.iter_mut().zip(&second).for_each(|(n, s)| *n += gain * s);
        }
        if dice.chance(self.spec.noise_reverb) {
            let t60 = dice.uniform(self.spec.t60[0], self.spec.t60[1]);
            let room = Room::random(dice, self.rate, t60, 0.0);
            [noise] = self.convolver.run(&noise, [&room.wet]);
        }
        noise
    }

    fn one_noise(&self, dice: &mut Dice) -> Vec<f32> {
        let mut out = match &self.noise {
            Some(clips) if !dice.chance(self.spec.synthetic) => {
                if dice.chance(self.spec.babble) {
                    self.babble(dice)
                } else {
                    self.clip_of(clips, dice)
                }
            }
            _ => {
                let mut out = vec![0.0; self.len];
                Kind::any(dice).fill(dice, self.rate, &mut out);
                out
            }
        };
        if dice.chance(self.spec.swell) {
            swell(dice, self.rate, &mut out);
        }
        if dice.chance(self.spec.tone) {
            cascade(&tone(dice, self.rate, self.spec.noise_tone_db), &mut out);
        }
        out
    }

    /// Many voices at once, up to 10 dB apart: nobody's speech.
    fn babble(&self, dice: &mut Dice) -> Vec<f32> {
        let mut out = vec![0.0; self.len];
        for _ in 0..BABBLE[0] + dice.below(BABBLE[1] - BABBLE[0] + 1) {
            let voice = self.speech(dice);
            let level = active_power(&voice, self.rate);
            if level > SILENCE {
                let gain = (10f64.powf(f64::from(dice.uniform(-10.0, 0.0)) / 10.0) / level).sqrt() as f32;
                out.iter_mut().zip(&voice).for_each(|(out, x)| *out += gain * x);
            }
        }
        out
    }

    /// Recorded noise, at its speed and in its direction.
    fn clip_of(&self, clips: &Corpus, dice: &mut Dice) -> Vec<f32> {
        let speed = self.spec.noise_speed;
        let mut out = at_speed(speed, self.len, dice, |dice, out| self.recorded(clips, dice, out));
        if speed != [1.0, 1.0] && dice.chance(0.5) {
            out.reverse();
        }
        out
    }

    /// A clip from anywhere in it, then the same again or another, until the segment is full; joins are faded.
    fn recorded(&self, clips: &Corpus, dice: &mut Dice, out: &mut [f32]) {
        let mut clip = clips.any_by_length(dice);
        let mut from = dice.below(clips.clip_len(clip));
        let mut at = 0;
        while at < out.len() {
            let count = (clips.clip_len(clip) - from).min(out.len() - at);
            let to = &mut out[at..at + count];
            clips.copy(clip, from, to);
            if count < self.len {
                fade(to, (0.01 * self.rate) as usize);
            }
            at += count;
            from = 0;
            if dice.chance(0.5) {
                clip = clips.any_by_length(dice);
            }
        }
    }
}

impl Maker for Mixer {
    type Row = f32;

    fn rows(&self) -> usize {
        self.len
    }

    fn make(&mut self, index: u64) -> Pair<f32> {
        let Example { noisy, clean, .. } = self.example(index);
        Pair { heard: noisy, wanted: clean }
    }
}

/// `len` samples of what `fill` makes, played at a speed between the two.
fn at_speed(
    [least, most]: [f32; 2],
    len: usize,
    dice: &mut Dice,
    fill: impl FnOnce(&mut Dice, &mut [f32]),
) -> Vec<f32> {
    let mut out = vec![0.0; len];
    if least == 1.0 && most == 1.0 {
        fill(dice, &mut out);
        return out;
    }
    let speed = dice.log_uniform(least, most);
    let mut source = vec![0.0; speed::needed(len, speed)];
    fill(dice, &mut source);
    speed::play(&source, speed, &mut out);
    out
}

/// Nothing yet: silence in half of the cases, else a hiss of −90 to −60 dB, which is not clean sound either.
fn late(dice: &mut Dice, noisy: &mut [f32], clean: &mut [f32]) {
    let count = (dice.uniform(0.1, 0.75) * noisy.len() as f32) as usize;
    let hiss = if dice.chance(0.5) { 0.0 } else { 10f32.powf(dice.uniform(-90.0, -60.0) / 20.0) };
    noisy.iter_mut().take(count).for_each(|x| *x = hiss * dice.normal());
    clean.iter_mut().take(count).for_each(|x| *x = 0.0);
}

fn peak(sound: &[f32]) -> f32 {
    sound.iter().fold(0.0, |peak, x| peak.max(x.abs()))
}

#[cfg(test)]
#[path = "mix_tests.rs"]
mod tests;
