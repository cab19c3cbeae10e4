//! The backbone: one flat run of blocks, or tiers that pool rows on the way in and unpool them on the way out
//! (SaShiMi, arXiv 2202.09729, §3.2).
//!
//! ```text
//! x ─ blocks ─┬─ pool p → linear ─► the tier within ─► linear → overlap (shift s) ─┐
//!             └──────────────────────── skip ──────────────────────────────────── + ─ blocks_up ─ y
//! ```
//!
//! Pooling lays p rows side by side and mixes them by one linear: `[p·d] → [d_next]`. Unpooling does the reverse and begins
//! `shift` coarse rows after the row it comes from was complete, which keeps the model causal. A tier outside the centre names its
//! tensors `tiers.{i}.down.{j}`, `tiers.{i}.pool`, `tiers.{i}.unpool`, `tiers.{i}.up.{j}`, the centre `tiers.{i}.layers.{j}`.

use super::blocks::{EPS, block};
use super::config::TierConfig;
use crate::plan::{Act, NormKind, PlanBuilder, View};
use crate::{Error, Result};

/// All tiers around each other, on rows as wide as the outermost; with a last norm `norm_f` if one is given.
pub fn backbone(
    b: &mut PlanBuilder,
    prefix: &str,
    x: View,
    tiers: &[TierConfig],
    last_norm: Option<NormKind>,
) -> Result<View> {
    let Some(outermost) = tiers.first() else {
        return Err(Error::input("backbone", "at least one tier", "none"));
    };
    if outermost.d_model != x.width {
        let expected = format!("rows as wide as its outermost tier ({})", outermost.d_model);
        return Err(Error::input("backbone", expected, x.width.to_string()));
    }
    let y = tier(b, prefix, 0, x, tiers)?;
    match last_norm {
        Some(kind) => b.norm(&format!("{prefix}norm_f"), y, kind, EPS),
        None => Ok(y),
    }
}

/// Tier `i` and those within it.
fn tier(b: &mut PlanBuilder, prefix: &str, i: usize, x: View, tiers: &[TierConfig]) -> Result<View> {
    let this = &tiers[i];
    let name = |part: &str| format!("{prefix}tiers.{i}.{part}");
    let Some(inner) = tiers.get(i + 1) else {
        return run(b, &name("layers"), x, this, this.blocks);
    };
    let skip = run(b, &name("down"), x, this, this.blocks)?;
    let rows = b.frame(&name("pool.rows"), skip, inner.pool, inner.pool)?;
    let coarse = b.linear(&name("pool"), rows, inner.d_model, true, Act::None)?;
    let coarse = tier(b, prefix, i + 1, coarse, tiers)?;
    let fine = b.linear(&name("unpool"), coarse, inner.pool * this.d_model, true, Act::None)?;
    let fine = b.overlap(&name("unpool.rows"), fine, inner.pool, inner.shift)?;
    let y = b.add(&name("skip"), skip, fine)?;
    run(b, &name("up"), y, this, this.blocks_up.unwrap_or(this.blocks))
}

fn run(b: &mut PlanBuilder, prefix: &str, x: View, tier: &TierConfig, blocks: usize) -> Result<View> {
    (0..blocks).try_fold(x, |x, j| block(b, &format!("{prefix}.{j}"), x, tier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{OpKind, Plan};

    fn plan(tiers: &str) -> Plan {
        let tiers: Vec<TierConfig> = serde_json::from_str(tiers).unwrap();
        let mut b = PlanBuilder::new();
        let x = b.samples(tiers[0].d_model);
        let y = backbone(&mut b, "", x, &tiers, Some(NormKind::Layer)).unwrap();
        b.build(y).unwrap()
    }

    #[test]
    fn tiers_run_at_their_periods_and_come_back_shifted() {
        let mixer = r#""mixer": {"kind": "s4d", "d_state": 2}"#;
        let plan = plan(&format!(
            r#"[{{"d_model": 4, "blocks": 2, "blocks_up": 1, {mixer}}},
                {{"d_model": 6, "blocks": 1, "pool": 4, {mixer}}},
                {{"d_model": 8, "blocks": 3, "pool": 2, "shift": 2, {mixer}}}]"#
        ));
        let periods: Vec<_> = plan
            .ops
            .iter()
            .filter(|op| matches!(op.kind, OpKind::Scan(_)))
            .map(|op| (op.name.as_str(), plan.tier(op).period))
            .collect();
        let expected = [
            ("tiers.0.down.0.mixer.scan", 1),
            ("tiers.0.down.1.mixer.scan", 1),
            ("tiers.1.down.0.mixer.scan", 4),
            ("tiers.2.layers.0.mixer.scan", 8),
            ("tiers.2.layers.1.mixer.scan", 8),
            ("tiers.2.layers.2.mixer.scan", 8),
            ("tiers.1.up.0.mixer.scan", 4),
            ("tiers.0.up.0.mixer.scan", 1),
        ];
        assert_eq!(periods, expected);
        let shifts: Vec<_> = plan
            .ops
            .iter()
            .filter_map(|op| match op.kind {
                OpKind::Overlap { period, shift, overlap } => Some((period, shift, overlap)),
                _ => None,
            })
            .collect();
        assert_eq!(shifts, [(2, 2, 1), (4, 1, 1)]);
        let shape = |name: &str| plan.param(plan.find_param(name).unwrap()).shape.clone();
        assert_eq!(shape("tiers.1.pool.weight"), [8, 12]);
        assert_eq!(shape("tiers.0.unpool.weight"), [16, 6]);
    }

    #[test]
    fn a_flat_backbone_is_one_tier() {
        let plan = plan(r#"[{"d_model": 4, "blocks": 2, "mixer": {"kind": "mamba"}}]"#);
        assert_eq!(plan.period(), 1);
        assert!(plan.find_param("tiers.0.layers.1.mixer.A_log").is_some());
        assert!(plan.find_param("norm_f.bias").is_some());
    }
}
