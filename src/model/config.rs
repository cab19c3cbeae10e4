//! What a model is: the JSON of a model file, and in the same shape the `[model]` table of a recipe.
//!
//! ```
//! use cascabel::model::{Config, Mixer};
//! let text = r#"{"kind": "generator", "rate": 16000,
//!                "tiers": [{"d_model": 64, "blocks": 8, "mixer": {"kind": "mamba", "d_state": 16}}]}"#;
//! let config: Config = serde_json::from_str(text).unwrap();
//! let Config::Generator(generator) = &config else { unreachable!() };
//! assert!(matches!(generator.tiers[0].mixer, Mixer::Mamba(m) if m.expand == 2 && !m.complex));
//! assert!(serde_json::from_str::<Config>(&text.replace("d_state", "d_stat")).is_err());
//! ```

use serde::{Deserialize, Serialize};

use super::{DrawConfig, MambaConfig, Mixer, filter, generator, language};
use crate::plan::{Act, NormKind, Plan};
use crate::{Error, Result};

/// The most parameters of one model: four thousand million.
const MAX_PARAMS: usize = 4_000_000_000;
/// The most f32 numbers of state of one stream: a gigabyte.
const MAX_STATE: usize = 1 << 28;
/// The most weights of a filter's encoder or basis, whose initial values are made with the plan.
const MAX_BANK: usize = 1 << 24;

/// A model's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Config {
    /// Sound to sound, causally.
    Filter(FilterConfig),
    /// Mu-law tokens to the logits of the next one.
    Generator(GeneratorConfig),
    /// Tokens to the logits of the next one, in the shape of the published Mamba checkpoints.
    Language(LanguageConfig),
}

/// A filter: see [`filter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// Samples a second.
    pub rate: u32,
    /// Samples in a frame of sound.
    #[serde(default = "one")]
    pub channels: usize,
    /// Frames of sound from one row of the backbone to the next.
    pub hop: usize,
    /// Frames of sound that the encoder sees.
    pub window: usize,
    /// Width of the encoder; without it the encoder writes the backbone's rows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// Applied to the encoder's outputs.
    #[serde(default = "no_act")]
    pub features_act: Act,
    /// Frames of sound under one row of the basis, a multiple of `hop`.
    pub basis_window: usize,
    /// Coefficients of a row of the basis; `basis_window·channels` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<usize>,
    /// Whether training begins from a windowed Fourier analysis and its inverse, not from random filters.
    #[serde(default = "yes")]
    pub fourier: bool,
    /// How far past the basis window the backbone sees, in frames of sound.
    #[serde(default)]
    pub lookahead: usize,
    /// What bounds the mask.
    #[serde(default)]
    pub mask: Mask,
    /// How many rows older than the newest the coefficients are that each of the masks weighs; the decoder gets the sum.
    #[serde(default = "one_tap", skip_serializing_if = "is_one_tap")]
    pub taps: Vec<usize>,
    /// Whether a second basis, begun as the quadrature of the first, gives each tap a second mask: complex masks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quadrature: bool,
    /// The backbone's tiers, outermost first.
    pub tiers: Vec<TierConfig>,
}

fn one_tap() -> Vec<usize> {
    vec![0]
}

fn is_one_tap(taps: &[usize]) -> bool {
    taps == [0]
}

/// What bounds a filter's mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// Between 0 and 1.
    #[default]
    Sigmoid,
    /// Between −1 and 1.
    Tanh,
    /// Unbounded.
    None,
}

/// A generator of sound: see [`generator`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Samples a second.
    pub rate: u32,
    /// Tokens; 256 for 8-bit mu-law.
    #[serde(default = "mu_law")]
    pub vocabulary: usize,
    /// Names of the classes that it can be told to make; none where it makes one kind of sound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Whether it knows sound without a class as well: the class after the last, which has no name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nameless: bool,
    /// Whether the head uses the embedding's table.
    #[serde(default)]
    pub tied: bool,
    /// How its tokens are best drawn.
    #[serde(default, skip_serializing_if = "DrawConfig::is_default")]
    pub draw: DrawConfig,
    /// The backbone's tiers, outermost first.
    pub tiers: Vec<TierConfig>,
}

/// A Mamba language model: see [`language`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageConfig {
    /// Tokens.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub layers: usize,
    /// The mixer of every block.
    #[serde(default)]
    pub mamba: MambaConfig,
    /// Whether the head uses the embedding's table.
    #[serde(default = "yes")]
    pub tied: bool,
    /// Added to the mean square in RMSNorm.
    #[serde(default = "eps")]
    pub eps: f32,
}

/// One tier of a backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Rows of the tier outside it that make one row; 1 for the outermost.
    #[serde(default = "one")]
    pub pool: usize,
    /// Rows of this tier from a row's completion to its first use outside; 2 or more leave time to spread its work over.
    #[serde(default = "one")]
    pub shift: usize,
    /// Blocks on the way in (in the centre: all).
    pub blocks: usize,
    /// Blocks on the way out; as many as on the way in without it. The centre has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_up: Option<usize>,
    /// The mixer of every block.
    pub mixer: Mixer,
    /// The feed-forward's inner width as a multiple of `d_model`; no feed-forward without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<f32>,
    /// The norm before each mixer and feed-forward.
    #[serde(default = "layer_norm")]
    pub norm: NormKind,
    /// Share of each branch's channels zeroed in training.
    #[serde(default)]
    pub dropout: f32,
}

fn one() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn no_act() -> Act {
    Act::None
}
fn mu_law() -> usize {
    256
}
fn eps() -> f32 {
    1e-5
}
fn layer_norm() -> NormKind {
    NormKind::Layer
}

impl Config {
    /// Checks every field, then compiles the model.
    pub fn plan(&self) -> Result<Plan> {
        self.validate()?;
        let plan = match self {
            Self::Filter(c) => filter::plan(c),
            Self::Generator(c) => generator::plan(c),
            Self::Language(c) => language::plan(c),
        }?;
        at_most("parameters", plan.param_count(), MAX_PARAMS)?;
        at_most("numbers of state", plan.state_len(), MAX_STATE)?;
        Ok(plan)
    }

    /// Checks every field; one line for the first that is wrong.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Filter(c) => c.validate(),
            Self::Generator(c) => {
                check_rate(c.rate)?;
                within("vocabulary", c.vocabulary, 1, 1 << 20)?;
                c.draw.validate(c.nameless)?;
                check_tiers(&c.tiers)
            }
            Self::Language(c) => {
                within("vocabulary", c.vocabulary, 1, 1 << 20)?;
                within("d_model", c.d_model, 1, 8192)?;
                within("layers", c.layers, 1, 512)?;
                if !(c.eps.is_finite() && c.eps > 0.0) {
                    return Err(bad("eps", "a number above 0", c.eps));
                }
                c.mamba.validate("mamba")
            }
        }
    }

    /// `filter`, `generator` or `language`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Filter(_) => "filter",
            Self::Generator(_) => "generator",
            Self::Language(_) => "language",
        }
    }

    /// Samples a second, of models of sound.
    pub fn rate(&self) -> Option<u32> {
        match self {
            Self::Filter(c) => Some(c.rate),
            Self::Generator(c) => Some(c.rate),
            Self::Language(_) => None,
        }
    }

    /// Samples in a frame of sound, of models of sound.
    pub fn channels(&self) -> Option<usize> {
        match self {
            Self::Filter(c) => Some(c.channels),
            Self::Generator(_) => Some(1),
            Self::Language(_) => None,
        }
    }

    /// Frames of sound by which the output lags: output n answers input n − latency. 0 unless a filter.
    pub fn latency(&self) -> usize {
        match self {
            Self::Filter(c) => c.latency(),
            _ => 0,
        }
    }
}

impl FilterConfig {
    /// Frames of sound by which the output lags the input that it answers.
    pub fn latency(&self) -> usize {
        self.basis_window + self.lookahead
    }

    /// Coefficients of a row of the basis.
    pub fn basis_len(&self) -> usize {
        self.basis.unwrap_or(self.basis_window * self.channels)
    }

    fn validate(&self) -> Result<()> {
        check_rate(self.rate)?;
        within("channels", self.channels, 1, 64)?;
        within("hop", self.hop, 1, 4096)?;
        within("window", self.window, self.hop, 1 << 16)?;
        within("features", self.features.unwrap_or(1), 1, 8192)?;
        if self.features_act == Act::Glu {
            return Err(bad("features_act", "an elementwise activation", "glu"));
        }
        within("basis_window", self.basis_window, self.hop, 2048)?;
        if !self.basis_window.is_multiple_of(self.hop) {
            return Err(bad("basis_window", format!("a multiple of hop ({})", self.hop), self.basis_window));
        }
        within("lookahead", self.lookahead, 0, 1 << 16)?;
        within("basis", self.basis_len(), 1, 8192)?;
        let square = self.basis_window * self.channels;
        if self.fourier && self.basis_len() != square {
            let expected = format!("{square} (basis_window·channels) when fourier is true");
            return Err(bad("basis", expected, self.basis_len()));
        }
        within("number of taps", self.taps.len(), 1, 64)?;
        for tap in &self.taps {
            within("taps", *tap, 0, 4096)?;
        }
        check_tiers(&self.tiers)?;
        let features = self.features.unwrap_or(self.tiers[0].d_model);
        at_most("weights of the encoder", features * self.window * self.channels, MAX_BANK)?;
        at_most("weights of the basis", self.basis_len() * square, MAX_BANK)
    }
}

impl TierConfig {
    fn validate(&self, name: &str) -> Result<()> {
        let field = |f: &str| format!("{name}.{f}");
        within(&field("d_model"), self.d_model, 1, 8192)?;
        within(&field("pool"), self.pool, 1, 4096)?;
        within(&field("shift"), self.shift, 1, 64)?;
        within(&field("blocks"), self.blocks, 0, 512)?;
        within(&field("blocks_up"), self.blocks_up.unwrap_or(0), 0, 512)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(bad(&field("dropout"), "at least 0 and below 1", self.dropout));
        }
        if let Some(expand) = self.feed_forward
            && !(expand > 0.0 && expand <= 16.0)
        {
            return Err(bad(&field("feed_forward"), "above 0 and at most 16", expand));
        }
        self.mixer.validate(&field("mixer"))
    }
}

fn check_tiers(tiers: &[TierConfig]) -> Result<()> {
    within("number of tiers", tiers.len(), 1, 8)?;
    for (i, tier) in tiers.iter().enumerate() {
        tier.validate(&format!("tiers[{i}]"))?;
    }
    let (first, last) = (&tiers[0], tiers.len() - 1);
    if (first.pool, first.shift) != (1, 1) {
        let got = format!("{} and {}", first.pool, first.shift);
        return Err(bad("tiers[0]", "pool 1 and shift 1 in the outermost tier", got));
    }
    if let Some(up @ 1..) = tiers[last].blocks_up {
        return Err(bad(&format!("tiers[{last}].blocks_up"), "none in the innermost tier", up));
    }
    let period = tiers.iter().fold(1usize, |p, t| p.saturating_mul(t.pool));
    at_most("rows of the outermost tier in one of the innermost", period, 1 << 16)
}

fn check_rate(rate: u32) -> Result<()> {
    within("rate", rate as usize, 1000, 768_000)
}

pub(super) fn within(field: &str, got: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&got) { Ok(()) } else { Err(bad(field, format!("{low} to {high}"), got)) }
}

fn at_most(what: &str, got: usize, limit: usize) -> Result<()> {
    if got <= limit { Ok(()) } else { Err(bad(what, format!("at most {limit}"), got)) }
}

/// An error about a field of a configuration.
pub(super) fn bad(field: &str, expected: impl Into<String>, got: impl ToString) -> Error {
    Error::input(format!("model config: {field}"), expected, got.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::S4dConfig;

    fn tier(d_model: usize, pool: usize, mixer: Mixer) -> TierConfig {
        TierConfig {
            d_model,
            pool,
            shift: 1,
            blocks: 1,
            blocks_up: None,
            mixer,
            feed_forward: Some(2.0),
            norm: NormKind::Layer,
            dropout: 0.0,
        }
    }

    fn generator(tiers: Vec<TierConfig>) -> Config {
        Config::Generator(GeneratorConfig {
            rate: 16_000,
            vocabulary: 256,
            classes: Vec::new(),
            nameless: false,
            tied: false,
            draw: DrawConfig::default(),
            tiers,
        })
    }

    #[test]
    fn json_returns_unchanged_and_typos_are_named() {
        let s4d = Mixer::S4d(S4dConfig::default());
        let config = generator(vec![tier(8, 1, s4d), tier(12, 4, Mixer::Mamba(MambaConfig::default()))]);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        for field in ["rate", "d_state", "pool", "glu"] {
            let typo = text.replace(&format!("\"{field}\""), &format!("\"{field}s\""));
            let message = serde_json::from_str::<Config>(&typo).unwrap_err().to_string();
            assert!(message.contains(&format!("{field}s")), "{message}");
        }
    }

    #[test]
    fn the_wrong_field_is_named_with_what_was_expected() {
        let mamba = Mixer::Mamba(MambaConfig::default());
        type Spoil = fn(&mut TierConfig);
        let cases: [(Spoil, &str); 6] = [
            (|t| t.d_model = 0, "tiers[1].d_model: expected 1 to 8192, got 0"),
            (|t| t.pool = 0, "tiers[1].pool: expected 1 to 4096, got 0"),
            (|t| t.shift = 0, "tiers[1].shift: expected 1 to 64, got 0"),
            (|t| t.dropout = f32::NAN, "tiers[1].dropout: expected at least 0 and below 1, got NaN"),
            (|t| t.feed_forward = Some(f32::NAN), "tiers[1].feed_forward: expected above 0"),
            (|t| t.blocks_up = Some(2), "tiers[1].blocks_up: expected none in the innermost tier, got 2"),
        ];
        for (spoil, expected) in cases {
            let mut inner = tier(8, 4, mamba);
            spoil(&mut inner);
            let message = generator(vec![tier(8, 1, mamba), inner]).plan().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_model_too_large_to_run_is_refused_before_its_weights_exist() {
        let mut large = tier(8192, 1, Mixer::Mamba(MambaConfig::default()));
        large.blocks = 512;
        let message = generator(vec![large]).plan().unwrap_err().to_string();
        assert!(message.contains("parameters: expected at most 4000000000"), "{message}");
    }
}
