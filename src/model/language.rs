//! A Mamba language model, tensor for tensor as the published checkpoints (Gu & Dao 2023, arXiv 2312.00752, §4.2):
//!
//! `backbone.embedding → layers × (x + mamba(RMSNorm(x))) → backbone.norm_f → lm_head`, the head tied to the embedding or not.

use super::blocks::language_block;
use super::config::LanguageConfig;
use crate::Result;
use crate::plan::{Act, NormKind, Plan, PlanBuilder};

/// The language model's plan.
pub fn plan(config: &LanguageConfig) -> Result<Plan> {
    let mut b = PlanBuilder::new();
    let mut x = b.embed("backbone.embedding", config.vocabulary, config.d_model)?;
    for i in 0..config.layers {
        x = language_block(&mut b, &format!("backbone.layers.{i}"), x, &config.mamba, config.eps)?;
    }
    let y = b.norm("backbone.norm_f", x, NormKind::Rms, config.eps)?;
    let logits = match b.find_param("backbone.embedding.weight") {
        Some(table) if config.tied => b.linear_tied("lm_head", y, table)?,
        _ => b.linear("lm_head", y, config.vocabulary, false, Act::None)?,
    };
    b.build(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_130m_has_129_135_360_parameters() {
        let text = r#"{"vocabulary": 50280, "d_model": 768, "layers": 24}"#;
        let config: LanguageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(plan(&config).unwrap().param_count(), 129_135_360);
        let untied = plan(&LanguageConfig { tied: false, ..config }).unwrap();
        assert_eq!(untied.param_count(), 129_135_360 + 50_280 * 768);
    }
}
