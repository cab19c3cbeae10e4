//! Residual blocks: `x + mixer(norm(x))`, then, if asked for, `x + feed_forward(norm(x))`.
//!
//! **Mamba** (Gu & Dao 2023, arXiv 2312.00752, §3.4), `d_inner = expand·d_model`, `dt_rank = ⌈d_model/16⌉`:
//!
//! ```text
//! [x, z] = in_proj u;  x = SiLU(conv1d x);  [dt, B, C] = x_proj x;  Δ = softplus(dt_proj dt + bias)
//! y = scan(x, Δ, B, C) + D x;  out = out_proj(y · SiLU(z))
//! ```
//!
//! **S4D** (arXiv 2206.11893; the layer around it: SaShiMi, arXiv 2202.09729, §3): `out = GLU(out_proj GELU(scan(u) + D u))`.
//!
//! **Feed-forward** (SaShiMi): `out = out_proj GELU(in_proj u)`.
//!
//! Tensor names are the field's: `{prefix}.norm.weight`, `{prefix}.mixer.A_log`, `{prefix}.ff.in_proj.weight`, ….

use super::config::TierConfig;
use super::{MambaConfig, Mixer, S4dConfig};
use crate::Result;
use crate::plan::{Act, Init, NormKind, PlanBuilder, View};

/// The epsilon of every norm but an imported model's.
pub const EPS: f32 = 1e-5;

/// One block of a tier: the mixer's branch and, if the tier has one, the feed-forward's.
pub fn block(b: &mut PlanBuilder, prefix: &str, x: View, tier: &TierConfig) -> Result<View> {
    let u = b.norm(&format!("{prefix}.norm"), x, tier.norm, EPS)?;
    let y = match &tier.mixer {
        Mixer::Mamba(config) => mamba(b, &format!("{prefix}.mixer"), u, config),
        Mixer::S4d(config) => s4d(b, &format!("{prefix}.mixer"), u, config),
    }?;
    let x = residual(b, prefix, x, y, tier.dropout)?;
    match tier.feed_forward {
        Some(expand) => feed_forward(b, &format!("{prefix}.ff"), x, expand, tier.norm, tier.dropout),
        None => Ok(x),
    }
}

/// `x + mamba(RMSNorm(x))`, the block of the published language models.
pub fn language_block(
    b: &mut PlanBuilder,
    prefix: &str,
    x: View,
    config: &MambaConfig,
    eps: f32,
) -> Result<View> {
    let u = b.norm(&format!("{prefix}.norm"), x, NormKind::Rms, eps)?;
    let y = mamba(b, &format!("{prefix}.mixer"), u, config)?;
    residual(b, prefix, x, y, 0.0)
}

/// The Mamba mixer, without norm and residual.
pub fn mamba(b: &mut PlanBuilder, prefix: &str, u: View, config: &MambaConfig) -> Result<View> {
    let MambaConfig { d_state, d_conv, expand, complex, dt_rank, dt_min, dt_max } = *config;
    let (d_inner, dt_rank) = (expand * u.width, dt_rank.unwrap_or(u.width.div_ceil(16)));
    let per_row = if complex { 2 * d_state } else { d_state };
    let name = |part: &str| format!("{prefix}.{part}");

    let xz = b.linear(&name("in_proj"), u, 2 * d_inner, false, Act::None)?;
    let (x, z) = (b.columns(xz, 0, d_inner)?, b.columns(xz, d_inner, d_inner)?);
    let x = b.conv(&name("conv1d"), x, d_conv, true, Act::Silu)?;
    let dbc = b.linear(&name("x_proj"), x, dt_rank + 2 * per_row, false, Act::None)?;
    let dt = b.columns(dbc, 0, dt_rank)?;
    let weight = Init::Uniform((dt_rank as f32).sqrt().recip());
    let bias = Some(Init::DtBias(dt_min, dt_max));
    let delta = b.linear_with(&name("dt_proj"), dt, d_inner, bias, weight, Act::Softplus)?;
    let (in_b, in_c) = (b.columns(dbc, dt_rank, per_row)?, b.columns(dbc, dt_rank + per_row, per_row)?);
    let y = b.selective_scan(&name(""), [x, delta, in_b, in_c], d_state, complex)?;
    let y = b.gate(&name("gate"), y, z, Act::Silu)?;
    b.linear(&name("out_proj"), y, u.width, false, Act::None)
}

/// The S4D mixer, without norm and residual.
pub fn s4d(b: &mut PlanBuilder, prefix: &str, u: View, config: &S4dConfig) -> Result<View> {
    let S4dConfig { d_state, complex, rule, glu } = *config;
    let y = b.invariant_scan(&format!("{prefix}."), u, d_state, complex, rule)?;
    let y = b.activate(&format!("{prefix}.act"), y, Act::Gelu)?;
    let act = if glu { Act::Glu } else { Act::None };
    b.linear(&format!("{prefix}.out_proj"), y, u.width, true, act)
}

/// `x + out_proj(GELU(in_proj(norm(x))))`, `expand` times as wide inside.
fn feed_forward(
    b: &mut PlanBuilder,
    prefix: &str,
    x: View,
    expand: f32,
    norm: NormKind,
    dropout: f32,
) -> Result<View> {
    let inner = ((expand * x.width as f32).round() as usize).max(1);
    let u = b.norm(&format!("{prefix}.norm"), x, norm, EPS)?;
    let y = b.linear(&format!("{prefix}.in_proj"), u, inner, true, Act::Gelu)?;
    let y = b.linear(&format!("{prefix}.out_proj"), y, x.width, true, Act::None)?;
    residual(b, prefix, x, y, dropout)
}

fn residual(b: &mut PlanBuilder, prefix: &str, x: View, y: View, dropout: f32) -> Result<View> {
    let y = if dropout > 0.0 { b.dropout(&format!("{prefix}.dropout"), y, dropout)? } else { y };
    b.add(&format!("{prefix}.add"), x, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Weights};

    fn shapes(build: impl Fn(&mut PlanBuilder, View) -> Result<View>) -> Plan {
        let mut b = PlanBuilder::new();
        let x = b.samples(20);
        let y = build(&mut b, x).unwrap();
        b.build(y).unwrap()
    }

    #[test]
    fn a_mamba_block_has_the_tensors_of_the_published_one() {
        let plan = shapes(|b, x| language_block(b, "layers.0", x, &MambaConfig::default(), 1e-5));
        let expected: [(&str, &[usize]); 10] = [
            ("layers.0.norm.weight", &[20]),
            ("layers.0.mixer.in_proj.weight", &[80, 20]),
            ("layers.0.mixer.conv1d.weight", &[40, 4]),
            ("layers.0.mixer.conv1d.bias", &[40]),
            ("layers.0.mixer.x_proj.weight", &[34, 40]),
            ("layers.0.mixer.dt_proj.weight", &[40, 2]),
            ("layers.0.mixer.dt_proj.bias", &[40]),
            ("layers.0.mixer.A_log", &[40, 16]),
            ("layers.0.mixer.D", &[40]),
            ("layers.0.mixer.out_proj.weight", &[20, 40]),
        ];
        let got: Vec<_> = plan.params.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn channels_begin_with_the_steps_that_are_asked_for() {
        for (dt_min, dt_max) in [(1e-3, 1e-1), (1e-7, 1e-2)] {
            let config = MambaConfig { dt_min, dt_max, expand: 64, ..MambaConfig::default() };
            let plan = shapes(|b, x| mamba(b, "m", x, &config));
            let weights = Weights::random(&plan, 1);
            let bias = weights.get(plan.find_param("m.dt_proj.bias").unwrap());
            let dt: Vec<f32> = bias.iter().map(|bias| bias.exp().ln_1p()).collect();
            let (least, most) = dt.iter().fold((f32::MAX, 0f32), |(a, b), dt| (a.min(*dt), b.max(*dt)));
            assert!(0.99 * dt_min <= least && least < 2.0 * dt_min, "{least}");
            assert!(0.5 * dt_max < most && most <= 1.01 * dt_max, "{most}");
        }
    }

    #[test]
    fn complex_mamba_doubles_b_and_c() {
        let config = MambaConfig { complex: true, d_state: 3, ..MambaConfig::default() };
        let plan = shapes(|b, x| mamba(b, "m", x, &config));
        let shape = |name: &str| plan.param(plan.find_param(name).unwrap()).shape.clone();
        assert_eq!(shape("m.x_proj.weight"), [2 + 2 * 6, 40]);
        assert_eq!(shape("m.A_imag"), [40, 3]);
    }

    #[test]
    fn s4d_with_feed_forward_has_gated_output_and_two_residuals() {
        let text = r#"{"d_model": 20, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 4}, "feed_forward": 1.5,
                       "dropout": 0.1}"#;
        let tier: TierConfig = serde_json::from_str(text).unwrap();
        let plan = shapes(|b, x| block(b, "b", x, &tier));
        let shape = |name: &str| plan.param(plan.find_param(name).unwrap()).shape.clone();
        assert_eq!(shape("b.mixer.C"), [20, 4, 2]);
        assert_eq!(shape("b.mixer.out_proj.weight"), [40, 20]);
        assert_eq!(shape("b.ff.in_proj.weight"), [30, 20]);
        let count = |kind: &str| plan.ops.iter().filter(|op| op.kind.name() == kind).count();
        assert_eq!((count("add"), count("dropout"), count("activate"), count("norm")), (2, 2, 1, 2));
    }
}
