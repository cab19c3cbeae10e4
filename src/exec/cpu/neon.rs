//! Lanes as four 128-bit registers. **Never run on an ARM processor, nor compiled for one**: the tests run it on a model of the
//! intrinsics (`neon_model`), which shows that the sequence of operations gives the bits of the plain code, and no more.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

#[cfg(not(target_arch = "aarch64"))]
use super::neon_model::*;

use super::lanes::Lanes;

/// Sixteen numbers in four q registers.
#[derive(Clone, Copy)]
pub struct Neon([float32x4_t; 4]);

impl Neon {
    #[inline(always)]
    fn zip(self, o: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, o.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }

    #[inline(always)]
    fn zip3(
        self,
        o: Self,
        p: Self,
        f: impl Fn(float32x4_t, float32x4_t, float32x4_t) -> float32x4_t,
    ) -> Self {
        let ([a, b, c, d], [e, g, h, i], [j, k, l, m]) = (self.0, o.0, p.0);
        Self([f(a, e, j), f(b, g, k), f(c, h, l), f(d, i, m)])
    }
}

// SAFETY: every method needs NEON, which the caller has checked.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all: the caller vouches for CPU and pointers"
)]
#[allow(
    unused_unsafe,
    reason = "which intrinsics are safe where NEON is always on differs between compilers"
)]
unsafe impl Lanes for Neon {
    const ROWS: usize = 1;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Self([vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        let [a, b, c, d] = self.0;
        unsafe {
            vst1q_f32(p, a);
            vst1q_f32(p.add(4), b);
            vst1q_f32(p.add(8), c);
            vst1q_f32(p.add(12), d);
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vdivq_f32(a, b) })
    }
    // The intrinsics take what is added to first.
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        self.zip3(a, b, |x, a, b| unsafe { vfmaq_f32(b, x, a) })
    }
    #[inline(always)]
    unsafe fn fnma(self, a: Self, b: Self) -> Self {
        self.zip3(a, b, |x, a, b| unsafe { vfmsq_f32(b, x, a) })
    }
    // Compared and selected, since FMIN and FMAX treat NaN and −0 otherwise than x86: a NaN in either gives the second.
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        self.zip(o, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(self.0.map(|x| unsafe { vabsq_f32(x) }))
    }
    #[inline(always)]
    unsafe fn less_nearest(self) -> Self {
        Self(self.0.map(|x| unsafe { vsubq_f32(x, vrndnq_f32(x)) }))
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        self.zip(n, |x, n| unsafe {
            let most = vdupq_n_f32(127.0);
            let above = vcgtq_f32(n, most);
            let x = vbslq_f32(above, vaddq_f32(x, x), x);
            let n = vbslq_f32(above, most, n);
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        })
    }
    #[inline(always)]
    unsafe fn bounded(self) -> Self {
        unsafe { Self::splat(128.0).min(Self::splat(-127.0).max(self)) }
    }
    #[inline(always)]
    unsafe fn normal(self) -> Self {
        let zero = unsafe { self.mul(Self::splat(0.0)) };
        unsafe { self.abs().where_below(Self::splat(f32::MIN_POSITIVE), zero, self) }
    }
    #[inline(always)]
    unsafe fn where_below(self, bound: Self, a: Self, b: Self) -> Self {
        let pick = |x, bound, a, b| unsafe { vbslq_f32(vcltq_f32(x, bound), a, b) };
        let ([x0, x1, x2, x3], [l0, l1, l2, l3]) = (self.0, bound.0);
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
        Self([pick(x0, l0, a0, b0), pick(x1, l1, a1, b1), pick(x2, l2, a2, b2), pick(x3, l3, a3, b3)])
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
}
