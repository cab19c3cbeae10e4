//! Lanes as an array, for machines without a faster implementation here.

use super::lanes::Lanes;

/// Sixteen numbers in an array.
#[derive(Clone, Copy)]
pub struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, o: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        out.iter_mut().zip(o.0).for_each(|(a, b)| *a = f(*a, b));
        Self(out)
    }

    #[inline(always)]
    fn zip3(self, a: Self, b: Self, f: impl Fn(f32, f32, f32) -> f32) -> Self {
        let mut out = self.0;
        out.iter_mut().zip(a.0).zip(b.0).for_each(|((x, a), b)| *x = f(*x, a, b));
        Self(out)
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }
}

// SAFETY: plain Rust; nothing is needed of the CPU.
unsafe impl Lanes for Portable {
    const ROWS: usize = 1;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 numbers at p.
        Self(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 numbers at p.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 16])
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        self.zip(o, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        self.zip(o, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        self.zip(o, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        self.zip(o, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        self.zip3(a, b, f32::mul_add)
    }
    #[inline(always)]
    unsafe fn fnma(self, a: Self, b: Self) -> Self {
        self.zip3(a, b, |x, a, b| (-x).mul_add(a, b))
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        self.zip(o, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        self.zip(o, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn less_nearest(self) -> Self {
        self.map(|x| x - x.round_ties_even())
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        self.zip(n, |x, n| {
            let x = if n > 127.0 { x + x } else { x };
            x * f32::from_bits(((n.min(127.0) as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    unsafe fn bounded(self) -> Self {
        self.map(|x| if x.is_nan() { x } else { x.clamp(-127.0, 128.0) })
    }
    #[inline(always)]
    unsafe fn normal(self) -> Self {
        self.map(|x| if x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x })
    }
    #[inline(always)]
    unsafe fn where_below(self, bound: Self, a: Self, b: Self) -> Self {
        let mut bound = bound.0;
        let lanes = bound.iter_mut().zip(self.0).zip(a.0.into_iter().zip(b.0));
        lanes.for_each(|((bound, x), (a, b))| *bound = if x < *bound { a } else { b });
        Self(bound)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        let four = [(a + i) + (e + m), (b + j) + (f + n), (c + k) + (g + o), (d + l) + (h + p)];
        let [a, b, c, d] = four;
        (a + c) + (b + d)
    }
}
