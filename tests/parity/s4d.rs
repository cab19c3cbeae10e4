//! The time-invariant scan: Ā and B̄, the recurrence from the judge's own f32 Ā and B̄, and both together.

use candle_core::{DType, Tensor};
use cascabel::exec::candle::scan::{ScanShape, scan, scan_back};
use cascabel::plan::{OpKind, Rule, coefficients};

use crate::bounds;
use crate::golden::{Golden, error, from_slot, names, to_slot};
use crate::report::Report;
use crate::run::{Setup, numbers, plan, tensor};

/// The continuous parameters: the plan's name, the judge's.
const PARAMS: [(&str, &str); 5] =
    [("log_dt", "log_dt"), ("A_log", "log_A_real"), ("A_imag", "A_imag"), ("C", "C"), ("D", "D")];

fn sizes(golden: &Golden) -> (usize, usize, usize) {
    (golden.shape("u")[0], golden.shape("A_imag")[0], golden.shape("A_imag")[1])
}

fn setup(golden: &Golden) -> Setup {
    let (streams, d, n) = sizes(golden);
    let rule = match golden.about("method").as_str() {
        Some("zoh") => Rule::Zoh,
        Some("bilinear") => Rule::Bilinear,
        other => panic!("{other:?}"),
    };
    let params = PARAMS.map(|(ours, theirs)| (ours, golden.f32(theirs)));
    let (plan, weights) = plan(d, |b, x| b.invariant_scan("", x, n, true, rule), &params);
    let slot = |name| vec![to_slot(golden.get(name), d, n, true)];
    let seeds = Some((golden.get("gy").to_vec(), slot("gh_T")));
    Setup { plan, weights, streams, input: golden.get("u").to_vec(), slots: slot("h0"), seeds }
}

/// Ā and B̄ against float64; and that they are the judge's f32 numbers, so that every executor is judged from the same ones.
fn bars(report: &mut Report, golden: &Golden, setup: &Setup) {
    let (_, d, n) = sizes(golden);
    let OpKind::Scan(of) = &setup.plan.ops[0].kind else { panic!("not a scan") };
    let found = coefficients(of, &setup.weights, 1.0).unwrap();
    for (name, got) in [("Abar", found.a), ("Bbar", found.b)] {
        let wide: Vec<f64> = got.into_iter().map(f64::from).collect();
        let got = from_slot(&wide, d, n, true);
        let wide = error(&got, golden.get(&format!("{name}_f64")));
        report.check(&golden.name, "plan", &format!("{name} against f64"), wide, bounds::BARS);
        report.check(
            &golden.name,
            "plan",
            &format!("{name} against its f32"),
            error(&got, golden.get(name)),
            0.0,
        );
    }
}

/// The recurrence from the stored f32 Ā and B̄, with gradients of these.
fn from_bars(report: &mut Report, golden: &Golden, dtype: DType, bound: f64) {
    let (streams, d, n) = sizes(golden);
    let len = 2 * n * d;
    let table = |name: &str| tensor(&to_slot(golden.get(name), d, n, true), &[len], dtype);
    let [a, b, c] = ["Abar", "Bbar", "C"].map(table);
    let params = Tensor::cat(&[a, b, c, tensor(golden.get("D"), &[d], dtype)], 0).unwrap();
    let h0 = tensor(&to_slot(golden.get("h0"), d, n, true), &[streams, 2 * n, d], dtype);
    let u = tensor(golden.get("u"), golden.shape("u"), dtype);
    let shape = ScanShape { d, n, complex: true, selective: false };
    let found = scan(shape, &u, &params, &h0).unwrap();
    let gy = tensor(golden.get("gy"), golden.shape("u"), dtype);
    let gh = tensor(&to_slot(golden.get("gh_T"), d, n, true), &[streams, 2 * n, d], dtype);
    let [_, gparams, gh0] = scan_back(shape, [&u, &params, &h0], &found, &gy, Some(&gh)).unwrap();
    let part = |i: usize, len: usize| numbers(&gparams.narrow(0, i, len).unwrap());
    let mut check = |name: &str, got: Vec<f64>| {
        let name = format!("bars_{name}");
        let executor = format!("candle {}", dtype.as_str());
        report.check(&golden.name, &executor, &name, error(&got, golden.get(&name)), bound);
    };
    check("y", numbers(&found.y));
    check("h_T", from_slot(&numbers(&found.h), d, n, true));
    for (i, name) in ["Abar", "Bbar", "C"].into_iter().enumerate() {
        check(&format!("grad_{name}"), from_slot(&part(i * len, len), d, n, true));
    }
    check("grad_h0", from_slot(&numbers(&gh0), d, n, true));
    check("grad_D", part(3 * len, d));
}

#[test]
fn the_time_invariant_scan_follows_its_float64_definition() {
    for (prefix, title) in [("s4d_zoh", "S4D, zero-order hold"), ("s4d_bilinear", "S4D, bilinear")] {
        let mut report = Report::new(title);
        for name in names(prefix, 6) {
            let golden = Golden::load(&name);
            let (_, d, n) = sizes(&golden);
            let setup = setup(&golden);
            bars(&mut report, &golden, &setup);
            from_bars(&mut report, &golden, DType::F64, bounds::OP_F64);
            from_bars(&mut report, &golden, DType::F32, bounds::OP);
            for outcome in setup.run() {
                // Candle in f64 keeps Ā and B̄ in f64. All others run from their f32 roundings, which are the judge's (see `bars`).
                let rounded = outcome.executor != "candle f64";
                let mut check = |name: &str, got: &[f64], bound| {
                    report.check(&golden.name, &outcome.executor, name, error(got, golden.get(name)), bound);
                };
                let end_to_end = |name: &str| match rounded {
                    true => bounds::end_to_end(&golden.name, name),
                    false => outcome.bound,
                };
                let h = from_slot(&outcome.slots[0], d, n, true);
                for (name, got) in [("y", &outcome.y), ("h_T", &h)] {
                    check(name, got, end_to_end(name));
                    if rounded {
                        check(&format!("bars_{name}"), got, outcome.bound);
                    }
                }
                let Some(grads) = &outcome.grads else { continue };
                for (ours, theirs) in PARAMS {
                    let name = format!("grad_{theirs}");
                    check(&name, &grads.params[ours], end_to_end(&name));
                }
                check("grad_u", &grads.input, end_to_end("grad_u"));
                check("grad_h0", &from_slot(&grads.slots[0], d, n, true), end_to_end("grad_h0"));
            }
        }
        report.finish();
    }
}
