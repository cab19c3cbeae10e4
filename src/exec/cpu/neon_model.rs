//! The NEON intrinsics that `neon` uses, in plain Rust after Arm's reference, so that it can be tested on other processors.
#![allow(non_camel_case_types, reason = "the intrinsics' own names")]
#![allow(
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    reason = "signatures as in std::arch"
)]

pub type float32x4_t = [f32; 4];
pub type float32x2_t = [f32; 2];
pub type int32x4_t = [i32; 4];
pub type uint32x4_t = [u32; 4];

fn zip<A: Copy, B: Copy, C>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> C) -> [C; 4] {
    let ([a, c, e, g], [b, d, h, i]) = (a, b);
    [f(a, b), f(c, d), f(e, h), f(g, i)]
}

fn all_ones(yes: bool) -> u32 {
    if yes { u32::MAX } else { 0 }
}

pub unsafe fn vld1q_f32(p: *const f32) -> float32x4_t {
    unsafe { p.cast::<[f32; 4]>().read_unaligned() }
}
pub unsafe fn vst1q_f32(p: *mut f32, a: float32x4_t) {
    unsafe { p.cast::<[f32; 4]>().write_unaligned(a) }
}
pub fn vdupq_n_f32(x: f32) -> float32x4_t {
    [x; 4]
}
pub fn vdupq_n_s32(x: i32) -> int32x4_t {
    [x; 4]
}
pub fn vaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    zip(a, b, |a, b| a + b)
}
pub fn vsubq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    zip(a, b, |a, b| a - b)
}
pub fn vmulq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    zip(a, b, |a, b| a * b)
}
pub fn vdivq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    zip(a, b, |a, b| a / b)
}
/// `a + b·c`, rounded once.
pub fn vfmaq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    zip(a, zip(b, c, |b, c| (b, c)), |a, (b, c)| b.mul_add(c, a))
}
/// `a − b·c`, rounded once.
pub fn vfmsq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    vfmaq_f32(a, b.map(|b| -b), c)
}
pub fn vabsq_f32(a: float32x4_t) -> float32x4_t {
    a.map(f32::abs)
}
/// Rounds to the nearest integer, ties to even.
pub fn vrndnq_f32(a: float32x4_t) -> float32x4_t {
    a.map(f32::round_ties_even)
}
/// Rounds to the nearest, ties to even; saturates, NaN gives 0.
pub fn vcvtnq_s32_f32(a: float32x4_t) -> int32x4_t {
    a.map(|a| a.round_ties_even() as i32)
}
pub fn vaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    zip(a, b, i32::wrapping_add)
}
pub fn vshlq_n_s32<const N: i32>(a: int32x4_t) -> int32x4_t {
    a.map(|a| a << N)
}
pub fn vreinterpretq_f32_s32(a: int32x4_t) -> float32x4_t {
    a.map(|a| f32::from_bits(a as u32))
}
pub fn vcltq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    zip(a, b, |a, b| all_ones(a < b))
}
pub fn vcgtq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    zip(a, b, |a, b| all_ones(a > b))
}
/// The bits of `b` where the mask has ones, of `c` elsewhere.
pub fn vbslq_f32(mask: uint32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    let pick = |m: u32, (b, c): (f32, f32)| f32::from_bits(b.to_bits() & m | c.to_bits() & !m);
    zip(mask, zip(b, c, |b, c| (b, c)), pick)
}
pub fn vget_low_f32([a, b, _, _]: float32x4_t) -> float32x2_t {
    [a, b]
}
pub fn vget_high_f32([_, _, c, d]: float32x4_t) -> float32x2_t {
    [c, d]
}
pub fn vadd_f32([a, b]: float32x2_t, [c, d]: float32x2_t) -> float32x2_t {
    [a + c, b + d]
}
pub fn vget_lane_f32<const LANE: i32>([a, b]: float32x2_t) -> f32 {
    if LANE == 0 { a } else { b }
}
