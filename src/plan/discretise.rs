//! Ā, B̄ and C of a time-invariant scan, from its continuous parameters.
//!
//! `A = −exp(A_log) + i·A_imag`, `Δ = exp(log_dt)·ratio`, B = 1. Zero-order hold: `Ā = e^{ΔA}`, `B̄ = (Ā − 1)/A`. Bilinear:
//! `Ā = (1 + ΔA/2)/(1 − ΔA/2)`, `B̄ = Δ/(1 − ΔA/2)` (S4D, arXiv 2206.11893, §2 and app. A). Computed in f64, rounded once.

use super::{Dynamics, ParamId, Rule, Scan, Weights};

/// The recurrence's coefficients, each `[rows, d]` with rows as in [`Scan::state_rows`]: N, or N real parts and then N
/// imaginary parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Coefficients {
    /// Ā.
    pub a: Vec<f32>,
    /// B̄.
    pub b: Vec<f32>,
    /// C.
    pub c: Vec<f32>,
}

/// The coefficients of a time-invariant scan at its own rate times `1/ratio` (`ratio` > 1 runs at a lower rate); `None` for a
/// selective scan, whose coefficients come with each row.
pub fn coefficients(scan: &Scan, weights: &Weights, ratio: f64) -> Option<Coefficients> {
    let Dynamics::Invariant { log_dt, c, rule } = scan.dynamics else { return None };
    let (d, n) = (scan.d, scan.n);
    let len = scan.state_rows() * d;
    let mut out = Coefficients { a: vec![0.0; len], b: vec![0.0; len], c: vec![0.0; len] };
    let at = |id: ParamId, i: usize| f64::from(weights.get(id)[i]);
    for channel in 0..d {
        let dt = at(log_dt, channel).exp() * ratio;
        for k in 0..n {
            let i = channel * n + k;
            let a = (-at(scan.a_log, i).exp(), scan.a_imag.map_or(0.0, |imag| at(imag, i)));
            let (a_bar, b_bar) = discretise(a, dt, rule);
            out.a[k * d + channel] = a_bar.0 as f32;
            out.b[k * d + channel] = b_bar.0 as f32;
            if scan.is_complex() {
                let imag = (n + k) * d + channel;
                out.a[imag] = a_bar.1 as f32;
                out.b[imag] = b_bar.1 as f32;
                out.c[k * d + channel] = at(c, 2 * i) as f32;
                out.c[imag] = at(c, 2 * i + 1) as f32;
            } else {
                out.c[k * d + channel] = at(c, i) as f32;
            }
        }
    }
    Some(out)
}

/// Real and imaginary part.
pub(crate) type Complex = (f64, f64);

/// One pole: (Ā, B̄).
pub(crate) fn discretise(a: Complex, dt: f64, rule: Rule) -> (Complex, Complex) {
    match rule {
        Rule::Zoh => {
            let grow = (dt * a.0).exp();
            let a_bar = (grow * (dt * a.1).cos(), grow * (dt * a.1).sin());
            (a_bar, divide((a_bar.0 - 1.0, a_bar.1), a))
        }
        Rule::Bilinear => {
            let half = (dt * a.0 / 2.0, dt * a.1 / 2.0);
            let below = (1.0 - half.0, -half.1);
            (divide((1.0 + half.0, half.1), below), divide((dt, 0.0), below))
        }
    }
}

/// The gradients of A (of its real and of its imaginary part) and of Δ from those of (Ā, B̄).
#[cfg(feature = "train")]
pub(crate) fn discretise_back(
    a: Complex,
    dt: f64,
    rule: Rule,
    (ga, gb): (Complex, Complex),
) -> (Complex, f64) {
    let times = |x: Complex, y: Complex| (x.0 * y.0 - x.1 * y.1, x.0 * y.1 + x.1 * y.0);
    let scaled = |x: Complex, by: f64| (x.0 * by, x.1 * by);
    // dĀ/dA, dB̄/dA, dĀ/dΔ, dB̄/dΔ.
    let slopes = match rule {
        Rule::Zoh => {
            let (a_bar, b_bar) = discretise(a, dt, rule);
            let grown = scaled(a_bar, dt);
            [grown, divide((grown.0 - b_bar.0, grown.1 - b_bar.1), a), times(a, a_bar), a_bar]
        }
        Rule::Bilinear => {
            let below = (1.0 - dt * a.0 / 2.0, -dt * a.1 / 2.0);
            let q = divide((1.0, 0.0), times(below, below));
            [scaled(q, dt), scaled(q, dt * dt / 2.0), times(a, q), q]
        }
    };
    let back = |g: Complex, slope: Complex| times(g, (slope.0, -slope.1));
    let (x, y) = (back(ga, slopes[0]), back(gb, slopes[1]));
    ((x.0 + y.0, x.1 + y.1), back(ga, slopes[2]).0 + back(gb, slopes[3]).0)
}

fn divide(x: Complex, y: Complex) -> Complex {
    let norm = y.0 * y.0 + y.1 * y.1;
    ((x.0 * y.0 + x.1 * y.1) / norm, (x.1 * y.0 - x.0 * y.1) / norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "train")]
    #[test]
    fn gradients_are_those_of_finite_differences() {
        let seeds = ((0.7, -0.4), (-1.3, 0.9));
        let value = |a: Complex, dt: f64, rule| {
            let (x, y) = discretise(a, dt, rule);
            let (g, h) = seeds;
            x.0 * g.0 + x.1 * g.1 + y.0 * h.0 + y.1 * h.1
        };
        for rule in [Rule::Zoh, Rule::Bilinear] {
            for (a, dt) in [((-0.5, 3.0), 0.01), ((-2.0, 0.0), 0.5), ((-0.5, 40.0), 0.1)] {
                let ((re, im), by_dt) = discretise_back(a, dt, rule, seeds);
                let at = |re: f64, im: f64, by: f64| value((a.0 + re, a.1 + im), dt + by, rule);
                let slope = |re, im, by| (at(re, im, by) - at(-re, -im, -by)) / 2e-6;
                for (got, want) in
                    [(re, slope(1e-6, 0.0, 0.0)), (im, slope(0.0, 1e-6, 0.0)), (by_dt, slope(0.0, 0.0, 1e-6))]
                {
                    assert!(
                        (got - want).abs() < 1e-6 * want.abs().max(1e-2),
                        "{rule:?} {a:?} {dt}: {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn both_rules_hold_a_constant_input_at_minus_one_over_a() {
        // A constant input 1 settles at B̄/(1 − Ā) = −1/A for any Δ and either rule.
        for rule in [Rule::Zoh, Rule::Bilinear] {
            for (a, dt) in [((-0.5, 3.0), 0.01), ((-2.0, 0.0), 0.5), ((-0.5, 40.0), 0.1)] {
                let (a_bar, b_bar) = discretise(a, dt, rule);
                let settled = divide(b_bar, (1.0 - a_bar.0, -a_bar.1));
                let expected = divide((-1.0, 0.0), a);
                assert!(
                    (settled.0 - expected.0).hypot(settled.1 - expected.1) < 1e-12,
                    "{rule:?} {a:?} {dt}"
                );
            }
        }
    }
}
