//! Lanes as two 256-bit registers.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Sixteen numbers in two ymm registers.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

/// Eight lanes added: halves, quarters, pairs.
#[inline(always)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "the caller vouches for AVX")]
pub unsafe fn sum8(x: __m256) -> f32 {
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// `x · 2^n` by a factor with that exponent: for n = −127 it is zero, for 128 twice that of 127.
#[inline(always)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "the caller vouches for AVX2")]
unsafe fn scale8(x: __m256, n: __m256) -> __m256 {
    unsafe {
        let most = _mm256_set1_ps(127.0);
        let x = _mm256_blendv_ps(x, _mm256_add_ps(x, x), _mm256_cmp_ps::<_CMP_GT_OQ>(n, most));
        let n = _mm256_min_ps(n, most);
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

// SAFETY: every method needs AVX2 and FMA, which the caller has checked.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all: the caller vouches for CPU and pointers"
)]
unsafe impl Lanes for Avx2 {
    const ROWS: usize = 1;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> Self {
        let eight = |p: *const u16| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) };
        unsafe { Self(eight(p), eight(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        let x = unsafe { _mm256_set1_ps(x) };
        Self(x, x)
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, o.0), _mm256_add_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, o.0), _mm256_sub_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, o.0), _mm256_mul_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, o.0), _mm256_div_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn fnma(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm256_fnmadd_ps(self.0, a.0, b.0), _mm256_fnmadd_ps(self.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, o.0), _mm256_min_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, o.0), _mm256_max_ps(self.1, o.1)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        let sign = unsafe { _mm256_set1_ps(-0.0) };
        unsafe { Self(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1)) }
    }
    #[inline(always)]
    unsafe fn less_nearest(self) -> Self {
        let nearest = |x| unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) };
        unsafe { self.sub(Self(nearest(self.0), nearest(self.1))) }
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        unsafe { Self(scale8(self.0, n.0), scale8(self.1, n.1)) }
    }
    #[inline(always)]
    unsafe fn bounded(self) -> Self {
        unsafe { Self::splat(128.0).min(Self::splat(-127.0).max(self)) }
    }
    #[inline(always)]
    unsafe fn normal(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn where_below(self, bound: Self, a: Self, b: Self) -> Self {
        unsafe {
            let below = |x, bound| _mm256_cmp_ps::<_CMP_LT_OQ>(x, bound);
            let pick = |a, b, mask| _mm256_blendv_ps(b, a, mask);
            Self(pick(a.0, b.0, below(self.0, bound.0)), pick(a.1, b.1, below(self.1, bound.1)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { sum8(_mm256_add_ps(self.0, self.1)) }
    }
}
