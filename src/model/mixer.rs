//! What mixes rows over time: a block's state-space model, as configurations name it.

use serde::{Deserialize, Serialize};

use super::config::{bad, within};
use crate::Result;
use crate::plan::Rule;

/// What mixes rows over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Mixer {
    /// The selective state-space block.
    Mamba(MambaConfig),
    /// The time-invariant diagonal one.
    S4d(S4dConfig),
}

/// A Mamba mixer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MambaConfig {
    /// States a channel (complex: conjugate pairs).
    pub d_state: usize,
    /// Taps of the convolution.
    pub d_conv: usize,
    /// `d_inner / d_model`.
    pub expand: usize,
    /// Whether A is complex.
    pub complex: bool,
    /// Rank of Δ's projection; `⌈d_model/16⌉` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dt_rank: Option<usize>,
    /// The least Δ, in rows, that a channel begins with; they are log-uniform up to `dt_max` (Gu & Dao 2023, §3.6). What a state has is kept for
    /// some 1/(Δ|A|) rows. Unlike mamba-ssm's, it has no floor of 1e-4 (`dt_init_floor`).
    #[serde(skip_serializing_if = "is_dt_min")]
    pub dt_min: f32,
    /// The greatest.
    #[serde(skip_serializing_if = "is_dt_max")]
    pub dt_max: f32,
}

/// An S4D mixer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S4dConfig {
    /// States a channel (complex: conjugate pairs).
    pub d_state: usize,
    /// Whether A is complex.
    pub complex: bool,
    /// The discretisation.
    pub rule: Rule,
    /// Whether the output projection is gated.
    pub glu: bool,
}

impl Default for MambaConfig {
    fn default() -> Self {
        Self {
            d_state: 16,
            d_conv: 4,
            expand: 2,
            complex: false,
            dt_rank: None,
            dt_min: DT_MIN,
            dt_max: DT_MAX,
        }
    }
}

const DT_MIN: f32 = 1e-3;
const DT_MAX: f32 = 1e-1;

fn is_dt_min(dt: &f32) -> bool {
    *dt == DT_MIN
}

fn is_dt_max(dt: &f32) -> bool {
    *dt == DT_MAX
}

impl Default for S4dConfig {
    fn default() -> Self {
        Self { d_state: 32, complex: true, rule: Rule::Zoh, glu: true }
    }
}

impl Mixer {
    /// Refuses sizes and steps out of range; `name` is the field's.
    pub(super) fn validate(&self, name: &str) -> Result<()> {
        match self {
            Self::Mamba(config) => config.validate(name),
            Self::S4d(config) => within(&format!("{name}.d_state"), config.d_state, 1, 1024),
        }
    }
}

impl MambaConfig {
    pub(super) fn validate(&self, name: &str) -> Result<()> {
        within(&format!("{name}.d_state"), self.d_state, 1, 1024)?;
        within(&format!("{name}.d_conv"), self.d_conv, 1, 64)?;
        within(&format!("{name}.expand"), self.expand, 1, 16)?;
        within(&format!("{name}.dt_rank"), self.dt_rank.unwrap_or(1), 1, 8192)?;
        if 1e-12 <= self.dt_min && self.dt_min <= self.dt_max && self.dt_max <= 10.0 {
            return Ok(());
        }
        let got = format!("{} and {}", self.dt_min, self.dt_max);
        Err(bad(&format!("{name}.dt_min and dt_max"), "1e-12 ≤ dt_min ≤ dt_max ≤ 10", got))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_channels_begin_with_are_written_where_they_are_not_the_usual() {
        let usual = serde_json::to_string(&MambaConfig::default()).unwrap();
        assert!(!usual.contains("dt_m"), "{usual}");
        let other = MambaConfig { dt_min: 1e-6, dt_max: 0.2, ..MambaConfig::default() };
        let text = serde_json::to_string(&other).unwrap();
        assert_eq!(serde_json::from_str::<MambaConfig>(&text).unwrap(), other);
    }

    #[test]
    fn steps_out_of_range_are_refused() {
        let expected = "m.dt_min and dt_max: expected 1e-12 ≤ dt_min ≤ dt_max ≤ 10, got";
        let cases = [
            (0.0, 0.1, "0 and 0.1"),
            (0.2, 0.1, "0.2 and 0.1"),
            (f32::NAN, 0.1, "NaN and 0.1"),
            (0.1, 11.0, "0.1 and 11"),
            (0.1, f32::NAN, "0.1 and NaN"),
        ];
        for (dt_min, dt_max, got) in cases {
            let mixer = Mixer::Mamba(MambaConfig { dt_min, dt_max, ..MambaConfig::default() });
            let message = mixer.validate("m").unwrap_err().to_string();
            assert!(message.contains(&format!("{expected} {got}")), "{message}");
        }
    }
}
