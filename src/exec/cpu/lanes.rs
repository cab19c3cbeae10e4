//! Sixteen f32 lanes, whatever the instruction set, and the functions computed on them.
//!
//! Every operation here is exactly rounded (or a fixed polynomial of such), and [`Lanes::sum`] adds in a fixed tree, so all
//! implementations give the same bits: a wider register changes the speed, not the sound.
#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "fitted coefficients, as they came out"
)]

/// Sixteen f32 numbers in registers. Methods are inlined into a function compiled for the instruction set.
///
/// # Safety
///
/// The CPU must have the implementation's instruction set; pointers must be valid for the numbers moved (16 unless said).
pub unsafe trait Lanes: Copy {
    /// The most rows of a matrix product computed together (register pressure).
    const ROWS: usize;
    /// Sixteen numbers at `p`, any alignment.
    unsafe fn load(p: *const f32) -> Self;
    /// Sixteen f16 numbers at `p`, any alignment: exact.
    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> Self {
        // SAFETY: the caller vouches for 16 numbers at p.
        unsafe {
            let halves = p.cast::<[u16; 16]>().read_unaligned();
            Self::load(halves.map(|bits| half::f16::from_bits(bits).to_f32_const()).as_ptr())
        }
    }
    /// Writes sixteen numbers at `p`, any alignment.
    unsafe fn store(self, p: *mut f32);
    /// One number in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// Lanewise sum.
    unsafe fn add(self, o: Self) -> Self;
    /// Lanewise difference.
    unsafe fn sub(self, o: Self) -> Self;
    /// Lanewise product.
    unsafe fn mul(self, o: Self) -> Self;
    /// Lanewise quotient.
    unsafe fn div(self, o: Self) -> Self;
    /// `self · a + b`, rounded once.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `b − self · a`, rounded once.
    unsafe fn fnma(self, a: Self, b: Self) -> Self;
    /// The smaller.
    unsafe fn min(self, o: Self) -> Self;
    /// The larger.
    unsafe fn max(self, o: Self) -> Self;
    /// The absolute value.
    unsafe fn abs(self) -> Self;
    /// The number less the integer nearest to it, ties to even.
    unsafe fn less_nearest(self) -> Self;
    /// x for 2^x: itself, or kept within [−127, 128] where `scale` needs it so. Beyond, 2^x is 0 or infinite either way.
    unsafe fn bounded(self) -> Self;
    /// `self · 2^n` for an integral n that is [`bounded`](Self::bounded).
    unsafe fn scale(self, n: Self) -> Self;
    /// Zero, its sign kept, for denormal numbers. Where [`FlushDenormals`](super::float_mode::FlushDenormals) makes the processor do it, nothing is left
    /// to do.
    unsafe fn normal(self) -> Self;
    /// `a` where self < bound, else `b`.
    unsafe fn where_below(self, bound: Self, a: Self, b: Self) -> Self;
    /// All lanes added: halves, quarters, eighths, then pairs.
    unsafe fn sum(self) -> f32;
}

/// Functions of a vector; maximal errors against f64 over the range used are in the tests.
///
/// # Safety
///
/// As for [`Lanes`].
pub trait Math: Lanes {
    /// `2^x`, 0 where that is denormal: degree-5 minimax polynomial on what is left of the nearest integer, exact at integers.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let x = self.bounded();
            let r = x.less_nearest();
            let p = Self::splat(0.001_326_472_8).fma(r, Self::splat(0.009_671_514));
            let p = p.fma(r, Self::splat(0.055_507_336));
            let p = p.fma(r, Self::splat(0.240_222_42));
            let p = p.fma(r, Self::splat(0.693_147));
            p.fma(r, Self::splat(1.0)).scale(x.sub(r)).normal()
        }
    }

    /// `1/(1+e^−x)`.
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = self.mul(Self::splat(-std::f32::consts::LOG2_E));
            Self::splat(1.0).div(x.exp2().add(Self::splat(1.0)))
        }
    }

    /// `x·σ(x)`.
    #[inline(always)]
    unsafe fn silu(self) -> Self {
        // SAFETY: as above.
        unsafe { self.mul(self.sigmoid()) }
    }

    /// `tanh x = 1 − 2/(1+e^{2x})`.
    #[inline(always)]
    unsafe fn tanh(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let x = self.mul(Self::splat(2.0 * std::f32::consts::LOG2_E));
            Self::splat(-2.0).div(x.exp2().add(Self::splat(1.0))).add(Self::splat(1.0))
        }
    }

    /// `ln(1+e^x)`, the identity above 20. With z = e^{−|x|} and s = z/(2+z): `max(x,0) + 2·artanh(s)`.
    #[inline(always)]
    unsafe fn softplus(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let z = self.abs().mul(Self::splat(-std::f32::consts::LOG2_E)).exp2();
            let s = z.div(z.add(Self::splat(2.0)));
            let q = s.mul(s);
            let p = Self::splat(0.281_781_55).fma(q, Self::splat(0.279_606_48));
            let p = p.fma(q, Self::splat(0.400_249_06));
            let p = p.fma(q, Self::splat(0.666_663_15));
            let log = p.fma(q, Self::splat(2.0)).mul(s);
            let y = self.max(Self::splat(0.0)).add(log);
            self.where_below(Self::splat(20.0), y, self)
        }
    }

    /// `x·Φ(x)` with the error function of Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7).
    #[inline(always)]
    unsafe fn gelu(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let one = Self::splat(1.0);
            let a = self.abs().mul(Self::splat(std::f32::consts::FRAC_1_SQRT_2));
            let t = one.div(Self::splat(0.327_591_1).fma(a, one));
            let p = Self::splat(1.061_405_4).fma(t, Self::splat(-1.453_152));
            let p = p.fma(t, Self::splat(1.421_413_7));
            let p = p.fma(t, Self::splat(-0.284_496_74));
            let p = p.fma(t, Self::splat(0.254_829_6)).mul(t);
            let tail =
                a.mul(a).mul(Self::splat(-std::f32::consts::LOG2_E)).exp2().mul(p).mul(Self::splat(0.5));
            // Φ(x) = tail/… for x below 0, 1 − tail above.
            let phi = self.where_below(Self::splat(0.0), tail, one.sub(tail));
            self.mul(phi)
        }
    }

    /// (cos 2πt, sin 2πt) for t = x·(rate + rest) turns, by half angles: degree-10 and degree-9 minimax polynomials. The
    /// product keeps its rounding error, as many turns leave few bits for the fraction.
    #[inline(always)]
    unsafe fn turn(self, rate: Self, rest: Self) -> (Self, Self) {
        // SAFETY: as above.
        unsafe {
            let turns = self.mul(rate);
            let lost = self.fnma(rate, turns);
            let r = turns.less_nearest().add(self.mul(rest).sub(lost));
            let q = r.mul(r);
            let s = Self::splat(0.077_220_12).fma(q, Self::splat(-0.598_045_17));
            let s = s.fma(q, Self::splat(2.550_031_4));
            let s = s.fma(q, Self::splat(-5.167_706_9));
            let s = s.fma(q, Self::splat(3.141_592_6)).mul(r);
            let c = Self::splat(-0.024_396_714).fma(q, Self::splat(0.234_937_56));
            let c = c.fma(q, Self::splat(-1.335_212));
            let c = c.fma(q, Self::splat(4.058_709));
            let c = c.fma(q, Self::splat(-4.934_802));
            let c = c.fma(q, Self::splat(1.0));
            let two_s = s.add(s);
            (two_s.fnma(s, Self::splat(1.0)), two_s.mul(c))
        }
    }
}

impl<V: Lanes> Math for V {}
