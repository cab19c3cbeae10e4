//! The elementary functions of the training kernels, written so that plain loops over slices vectorise.
//!
//! `f32` has polynomials without branches (relative error ≤ 2·10⁻⁷: Cephes' expf, sinf, cosf, tanhf; Abramowitz & Stegun
//! 7.1.26 for erf, absolute 5·10⁻⁷); `f64`, used in gradient checks, has the standard library's functions. Everything here
//! is `inline(always)`: [`wide`](crate::wide::wide) compiles it once for each instruction set.

use candle_core::WithDType;

/// A number of the training kernels: f32 or f64.
pub(super) trait Real: WithDType + std::ops::Neg<Output = Self> {
    /// Values of a state below this size are 0.
    const TINY: Self;
    /// A constant of this type.
    fn of(x: f32) -> Self;
    /// e^x; 0 or a number below 2⁻¹²⁵ where f32 underflows.
    fn exp(self) -> Self;
    /// (sin x, cos x); f32 for sizes below 10⁴.
    fn sin_cos(self) -> (Self, Self);
    /// tanh x.
    fn tanh(self) -> Self;
    /// ln(1 + x) for x in 0..=1.
    fn ln_1p(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
    /// 1/√x.
    fn rsqrt(self) -> Self;

    /// 0 for values too small to carry.
    #[inline(always)]
    fn flush(self) -> Self {
        if self.abs() < Self::TINY { Self::zero() } else { self }
    }

    /// 1/(1+e^−x).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }

    /// ln(1+e^x), the identity above 20.
    #[inline(always)]
    fn softplus(self) -> Self {
        let above = if self > Self::zero() { self } else { Self::zero() };
        let soft = above + (-self.abs()).exp().ln_1p();
        if self > Self::of(20.0) { self } else { soft }
    }
}

/// 1.5·2²³: adding it rounds a small f32 to an integer, held in the low bits.
const ROUND: f32 = 12_582_912.0;

impl Real for f32 {
    const TINY: Self = f32::from_bits(27 << 23);

    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn exp(self) -> Self {
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = (x - k * 0.693_359_4) - k * -2.121_944_4e-4;
        let mut p = 1.987_569_1e-4_f32;
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = p * r + c;
        }
        let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        (p * r * r + r + 1.0) * scale
    }

    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        let shifted = self * std::f32::consts::FRAC_2_PI + ROUND;
        let (k, quadrant) = (shifted - ROUND, shifted.to_bits());
        // π/2 in three parts of few bits, so that k times each of the first two is exact.
        let r = ((self - k * 1.570_312_5) - k * 4.837_513e-4) - k * 7.549_79e-8;
        let z = r * r;
        let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
        let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
        let swap = quadrant & 1 == 1;
        let (s, c) = if swap { (cos, sin) } else { (sin, cos) };
        let flip = |x: f32, bit: u32| f32::from_bits(x.to_bits() ^ (bit << 31));
        (flip(s, (quadrant >> 1) & 1), flip(c, ((quadrant >> 1) ^ quadrant) & 1))
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        let z = self * self;
        let mut p = -5.704_988_7e-3_f32;
        for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -0.333_332_78] {
            p = p * z + c;
        }
        let small = p * z * self + self;
        let large = 1.0 - 2.0 / (Real::exp(2.0 * self.abs()) + 1.0);
        if self.abs() < 0.625 { small } else { large.copysign(self) }
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        let s = self / (2.0 + self);
        let z = s * s;
        let mut p = 1.0 / 15.0;
        for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
            p = p * z + c;
        }
        2.0 * (p * z * s + s)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.abs();
        let t = 1.0 / (1.0 + 0.327_591_1 * x);
        let mut p = 1.061_405_4_f32;
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = p * t + c;
        }
        (1.0 - p * t * Real::exp(-x * x)).copysign(self)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }

    #[inline(always)]
    fn rsqrt(self) -> Self {
        1.0 / self.sqrt()
    }
}

impl Real for f64 {
    const TINY: Self = f64::from_bits((1023 - 100) << 52);

    #[inline(always)]
    fn of(x: f32) -> Self {
        f64::from(x)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        f64::sin_cos(self)
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        f64::ln_1p(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        candle_core::cpu::erf::erf_f64(self)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        f64::abs(self)
    }

    #[inline(always)]
    fn rsqrt(self) -> Self {
        1.0 / self.sqrt()
    }
}

/// The sum of a slice in 16 partial sums, so that it vectorises.
#[inline(always)]
pub(super) fn sum<T: Real>(x: &[T]) -> T {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = [T::zero(); 16];
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i];
        }
    }
    rest.iter().fold(total(lanes), |s, v| s + *v)
}

/// The sum of products of two slices in 16 partial sums.
#[inline(always)]
pub(super) fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    let mut lanes = [T::zero(); 16];
    for (a, b) in xs.iter().zip(ys) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    x_rest.iter().zip(y_rest).fold(total(lanes), |s, (a, b)| s + *a * *b)
}

/// The sum of 16 lanes, halving.
#[inline(always)]
fn total<T: Real>(lanes: [T; 16]) -> T {
    let eight: [T; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [T; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(lo: f64, hi: f64, f: impl Fn(f32) -> f32, g: impl Fn(f64) -> f64, floor: f64) -> f64 {
        let at = |i: u32| (lo + (hi - lo) * f64::from(i) / 20_000.0) as f32;
        let error = |x: f32| {
            let exact = g(f64::from(x));
            (f64::from(f(x)) - exact).abs() / exact.abs().max(floor)
        };
        (0..=20_000).map(|i| error(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn polynomials_stay_within_their_errors() {
        assert!(worst(-87.0, 88.0, Real::exp, f64::exp, 0.0) < 2e-7);
        assert!(worst(-50.0, 50.0, |x| Real::sin_cos(x).0, f64::sin, 0.1) < 2e-6);
        assert!(worst(-50.0, 50.0, |x| Real::sin_cos(x).1, f64::cos, 0.1) < 2e-6);
        assert!(worst(-20.0, 20.0, Real::tanh, f64::tanh, 0.0) < 4e-7);
        assert!(worst(0.0, 1.0, Real::ln_1p, f64::ln_1p, 0.0) < 3e-7);
        assert!(worst(-5.0, 5.0, Real::erf, candle_core::cpu::erf::erf_f64, 1.0) < 6e-7);
        assert!(
            worst(-30.0, 30.0, Real::softplus, |x| if x > 20.0 { x } else { x.exp().ln_1p() }, 0.0) < 4e-7
        );
    }

    #[test]
    fn sums_take_every_element_of_any_length() {
        for n in [0, 1, 15, 16, 33, 100] {
            let x: Vec<f64> = (0..n).map(f64::from).collect();
            let n = f64::from(n);
            assert_eq!(sum(&x), (n * n - n) / 2.0);
            assert_eq!(dot(&x, &vec![2.0; x.len()]), n * n - n);
        }
    }
}
