//! The small ops, the optimiser and the clipping, against torch in float64.

use cascabel::plan::{Act, NormKind, PlanBuilder, View};
use cascabel::train::adamw::{AdamW, AdamWSpec, Group};

use crate::bounds;
use crate::golden::{Golden, error, names, narrow};
use crate::report::Report;
use crate::run::{Setup, plan};

/// An op whose parameters are `o.weight` and `o.bias`, over the rows of `x`.
fn setup(golden: &Golden, build: impl FnOnce(&mut PlanBuilder, View) -> cascabel::Result<View>) -> Setup {
    let (streams, width) = match *golden.shape("x") {
        [width] => (1, width),
        [_, width] => (1, width),
        [streams, _, width] => (streams, width),
        ref other => panic!("x {other:?}"),
    };
    let given = [("o.weight", "weight"), ("o.bias", "bias")];
    let params: Vec<_> = given.iter().filter(|p| golden.has(p.1)).map(|p| (p.0, golden.f32(p.1))).collect();
    let (plan, weights) = plan(width, build, &params);
    finish(golden, plan, weights, streams)
}

fn finish(
    golden: &Golden,
    plan: cascabel::plan::Plan,
    weights: cascabel::plan::Weights,
    streams: usize,
) -> Setup {
    let slot = |name| if golden.has(name) { golden.get(name).to_vec() } else { Vec::new() };
    let slots = |name| plan.states.iter().map(|_| slot(name)).collect();
    let (before, seeds) = (slots("state0"), Some((golden.get("gy").to_vec(), slots("gstate_T"))));
    Setup { weights, streams, input: golden.get("x").to_vec(), slots: before, seeds, plan }
}

fn judge(report: &mut Report, golden: &Golden, op: &str, setup: &Setup) {
    for outcome in setup.run() {
        let mut check = |name: &str, got: &[f64]| {
            let quantity = format!("{op} {name}");
            report.check(
                &golden.name,
                &outcome.executor,
                &quantity,
                error(got, golden.get(name)),
                outcome.bound,
            );
        };
        check("y", &outcome.y);
        if golden.has("state_T") {
            check("state_T", &outcome.slots[0]);
        }
        let Some(grads) = &outcome.grads else { continue };
        check("grad_x", &grads.input);
        for (ours, theirs) in [("o.weight", "grad_weight"), ("o.bias", "grad_bias")] {
            if golden.has(theirs) {
                check(theirs, &grads.params[ours]);
            }
        }
        if golden.has("grad_state0") {
            check("grad_state0", &grads.slots[0]);
        }
    }
}

#[test]
fn activations_follow_torch() {
    let mut report = Report::new("activations");
    for (name, act) in [("silu", Act::Silu), ("gelu", Act::Gelu), ("softplus", Act::Softplus)] {
        let golden = Golden::load(&format!("op_{name}"));
        judge(&mut report, &golden, name, &setup(&golden, |b, x| b.activate("o", x, act)));
    }
    let golden = Golden::load("op_glu");
    let width = golden.shape("x")[1];
    let identity = (0..width * width).map(|i| if i % (width + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let build = |b: &mut PlanBuilder, x| b.linear("o", x, width / 2, false, Act::Glu);
    let (plan, weights) = plan(width, build, &[("o.weight", identity)]);
    judge(&mut report, &golden, "glu", &finish(&golden, plan, weights, 1));
    report.finish();
}

#[test]
fn gelu_is_not_its_tanh_form() {
    let golden = Golden::load("op_gelu_tanh");
    for outcome in setup(&golden, |b, x| b.activate("o", x, Act::Gelu)).run() {
        let worst = crate::golden::largest_difference(&outcome.y, golden.get("y"));
        assert!(worst > bounds::TOLD_APART, "{}: {worst:.1e}", outcome.executor);
    }
}

#[test]
fn norms_follow_torch() {
    let mut report = Report::new("norms");
    for (prefix, op, kind, count) in
        [("op_layernorm", "LayerNorm", NormKind::Layer, 2), ("op_rmsnorm", "RMSNorm", NormKind::Rms, 3)]
    {
        for name in names(prefix, count) {
            let golden = Golden::load(&name);
            let eps = golden.about("eps").as_f64().unwrap() as f32;
            judge(&mut report, &golden, op, &setup(&golden, |b, x| b.norm("o", x, kind, eps)));
        }
    }
    report.finish();
}

#[test]
fn convolutions_follow_torch_and_carry_their_state() {
    let mut report = Report::new("convolution");
    for name in names("op_conv", 5) {
        let golden = Golden::load(&name);
        let taps = golden.shape("weight")[1];
        judge(&mut report, &golden, "conv", &setup(&golden, |b, x| b.conv("o", x, taps, true, Act::None)));
    }
    report.finish();
}

#[test]
fn the_linear_op_follows_torch() {
    let mut report = Report::new("linear");
    let golden = Golden::load("op_linear");
    let d_out = golden.shape("weight")[0];
    judge(&mut report, &golden, "linear", &setup(&golden, |b, x| b.linear("o", x, d_out, true, Act::None)));
    report.finish();
}

/// The optimiser's vector of this name.
fn vector(optimiser: &AdamW, name: &str) -> Vec<f64> {
    let found = optimiser.state().find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn the_optimiser_follows_torch() {
    let mut report = Report::new("optimiser");
    for name in ["op_adam", "op_adamw"] {
        let golden = Golden::load(name);
        let number = |key: &str| golden.about(key).as_f64().unwrap() as f32;
        let spec = AdamWSpec {
            betas: [number("beta1"), number("beta2")],
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            clip: 0.0,
            ema: 0.0,
        };
        let (mut p, mut q) = (golden.f32("p.0"), golden.f32("q.0"));
        let mut optimiser = AdamW::new(&spec, vec![Group::new("p", &p), Group::new("q", &q)]).unwrap();
        for step in 1..=5 {
            let [gp, gq] = ["p", "q"].map(|key| golden.f32(&format!("grad_{key}.{step}")));
            optimiser.step(number("lr"), &mut [&mut p, &mut q], &[&gp, &gq]).unwrap();
            for (key, got) in [("p", &p), ("q", &q)] {
                let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
                let worst = error(&got, golden.get(&format!("{key}.{step}")));
                report.check(name, "AdamW", &format!("{key} after step {step}"), worst, bounds::OP);
            }
        }
        for (ours, theirs) in [("m.p", "m_p.5"), ("m.q", "m_q.5"), ("v.p", "v_p.5"), ("v.q", "v_q.5")] {
            report.check(
                name,
                "AdamW",
                ours,
                error(&vector(&optimiser, ours), golden.get(theirs)),
                bounds::OP,
            );
        }
    }
    report.finish();
}

#[test]
fn clipping_follows_torch() {
    let mut report = Report::new("clipping");
    let golden = Golden::load("op_clip");
    // β₁ = 0: the first moment is the clipped gradient.
    let clip = golden.about("max_norm").as_f64().unwrap() as f32;
    let spec = AdamWSpec { betas: [0.0, 0.5], clip, ..AdamWSpec::default() };
    let (mut p, mut q) = (vec![0.0; golden.get("p").len()], vec![0.0; golden.get("q").len()]);
    let mut optimiser = AdamW::new(&spec, vec![Group::new("p", &p), Group::new("q", &q)]).unwrap();
    let (gp, gq) = (narrow(golden.get("p")), narrow(golden.get("q")));
    let step = optimiser.step(1e-3, &mut [&mut p, &mut q], &[&gp, &gq]).unwrap();
    assert!(step.clipped);
    report.check("op_clip", "AdamW", "norm", error(&[step.norm], golden.get("norm")), bounds::OP);
    for (ours, theirs) in [("m.p", "clipped_p"), ("m.q", "clipped_q")] {
        report.check(
            "op_clip",
            "AdamW",
            theirs,
            error(&vector(&optimiser, ours), golden.get(theirs)),
            bounds::OP,
        );
    }
    report.finish();
}
