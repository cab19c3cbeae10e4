//! x^p of many positive numbers at once, written so that plain loops vectorise.

/// Writes `x^p` for each x: normal positive numbers, results within f32's normal range. Relative error about 10⁻⁶.
pub fn powers(p: f32, x: impl ExactSizeIterator<Item = f32>, out: &mut Vec<f32>) {
    out.clear();
    out.extend(x);
    crate::wide::wide(
        #[inline(always)]
        || {
            for x in out.iter_mut() {
                *x = exp2(p * log2(*x));
            }
        },
    );
}

/// log₂ x = k + log₂ m, m in √½..√2, by the series of 2·artanh((m − 1)/(m + 1)).
#[inline(always)]
fn log2(x: f32) -> f32 {
    const HALF_ROOT: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(HALF_ROOT);
    let k = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(HALF_ROOT));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = (((z / 9.0 + 1.0 / 7.0) * z + 0.2) * z + 1.0 / 3.0) * z + 1.0;
    k + s * series * (2.0 * std::f32::consts::LOG2_E)
}

/// 2^x, x clamped to −126..127: whole part by the exponent's bits, the rest by Taylor's polynomial.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // 1.5·2²³: adding it rounds to a whole number, held in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-126.0, 127.0);
    let shifted = x + ROUND;
    let r = (x - (shifted - ROUND)) * std::f32::consts::LN_2;
    let mut p = 1.0 / 720.0;
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_the_standard_librarys_powers() {
        let x: Vec<f32> = (-2000..600).map(|i| 10f32.powf(i as f32 / 300.0)).collect();
        for p in [-1.7, -0.7, 0.3, 1.0, 0.0] {
            let mut got = Vec::new();
            powers(p, x.iter().copied(), &mut got);
            for (x, got) in x.iter().zip(&got) {
                let want = f64::from(*x).powf(f64::from(p));
                assert!((f64::from(*got) / want - 1.0).abs() < 3e-6, "{x}^{p}: {got} for {want}");
            }
        }
    }
}
