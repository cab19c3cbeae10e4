//! How a generator's tokens are drawn where nobody says otherwise: `[model.draw]` of a recipe.

use serde::{Deserialize, Serialize};

use super::config::bad;
use crate::exec::Sampling;
use crate::{Error, Result};

/// What was chosen on validation data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrawConfig {
    /// Divides the logits.
    pub temperature: f32,
    /// The share of the most likely tokens that are drawn from.
    pub top_p: f32,
    /// How far the class leads: see [`GeneratorOptions`](crate::engine::GeneratorOptions).
    pub guidance: f32,
}

impl Default for DrawConfig {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, guidance: 1.0 }
    }
}

impl DrawConfig {
    /// Whether it says nothing: the model's own distribution, led by the class alone.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The draw of each token.
    pub fn sampling(&self) -> Sampling {
        let top_p = Some(self.top_p).filter(|p| *p != 1.0);
        Sampling::Random { temperature: self.temperature, top_k: None, top_p }
    }

    /// `nameless`: whether the model knows sound without a class, which guidance leads away from.
    pub(super) fn validate(&self, nameless: bool) -> Result<()> {
        self.sampling().check().map_err(|error| match error {
            Error::Input { what, expected, got } => {
                bad(&format!("draw.{}", what.replace('-', "_")), expected, got)
            }
            other => other,
        })?;
        check_guidance(self.guidance, nameless)
            .map_err(|expected| bad("draw.guidance", expected, self.guidance))
    }
}

/// The most that a class may lead by: beyond, one sample is likely and no other.
const MOST_GUIDANCE: f32 = 100.0;

/// What was expected of a guidance that is out of range, or that says nothing to a model that knows no sound without a class.
pub(crate) fn check_guidance(guidance: f32, nameless: bool) -> Result<(), String> {
    match nameless {
        _ if guidance == 1.0 => Ok(()),
        false => Err("1, as the model knows no sound without a class".into()),
        true if (0.0..=MOST_GUIDANCE).contains(&guidance) => Ok(()),
        true => Err(format!("0 to {MOST_GUIDANCE}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Config;

    #[test]
    fn how_tokens_are_drawn_is_checked_and_survives() {
        let with = |nameless: bool, draw: &str| {
            let text = format!(
                r#"{{"kind": "generator", "rate": 8000, "classes": ["a"], "nameless": {nameless}, "draw": {draw},
                    "tiers": [{{"d_model": 4, "blocks": 1, "mixer": {{"kind": "mamba"}}}}]}}"#
            );
            let config: Config = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            config.validate().map_err(|e| e.to_string()).map(|()| config)
        };
        let config = with(true, r#"{"temperature": 0.9, "guidance": 2.5}"#).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains("0.9") && serde_json::from_str::<Config>(&text).unwrap() == config);
        for (nameless, draw, what) in [
            (
                true,
                r#"{"temperature": 0.0}"#,
                "model config: draw.temperature: expected a number above 0, got 0",
            ),
            (
                true,
                r#"{"top_p": 1.5}"#,
                "model config: draw.top_p: expected a share above 0, at most 1, got 1.5",
            ),
            (false, r#"{"guidance": 2.0}"#, "draw.guidance: expected 1, as the model knows"),
            (true, r#"{"guidance": 1e30}"#, "draw.guidance: expected 0 to 100, got 1000"),
            (true, r#"{"heat": 2.0}"#, "heat"),
        ] {
            let message = with(nameless, draw).unwrap_err();
            assert!(message.contains(what), "{message}");
        }
    }
}
