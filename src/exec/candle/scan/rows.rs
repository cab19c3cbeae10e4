//! One row of the recurrence on a block of w neighbouring channels: forward and backward.
//!
//! Everything per state row is `[rows, w]`, so each inner loop runs over channels and vectorises. `x` is what drives the
//! state: Δ·u (selective) or u (time-invariant). `e` is the decay Ā.
//!
//! Backward, with g the gradient of h_t gathered from the future and from y_t (real case):
//! `g += C·ȳ`; `C̄ = ȳ·h_t`; `B̄ = g·x`; `x̄ = Σ g·B`; `ē = g·h_{t−1}`; and `e·g` goes on to h_{t−1}. Complex: each number is
//! a pair of reals, `y = 2·Re(C·h)`, and the decay passed back is the conjugate.

use super::super::math::{Real, dot};

/// B and C of one row: one number a state row and row (selective), or one a channel (time-invariant).
#[derive(Clone, Copy)]
pub(super) enum Mix<'a, T> {
    /// B, C of this row: `[N]`, or `[N, 2]` for complex.
    Row { b: &'a [T], c: &'a [T] },
    /// B̄, C of this block: `[rows, w]`.
    Fixed { b: &'a [T], c: &'a [T] },
}

/// Where the gradients of B and C go: as [`Mix`].
pub(super) enum MixGrad<'a, T> {
    /// Added to: `[N]` or `[N, 2]`.
    Row { b: &'a mut [T], c: &'a mut [T] },
    /// Added to: `[rows, w]`.
    Fixed { b: &'a mut [T], c: &'a mut [T] },
}

/// e = exp(Δ·A), complex A as N real rows, then N imaginary rows.
#[inline(always)]
pub(super) fn decay<T: Real>(complex: bool, dt: &[T], a: &[T], e: &mut [T]) {
    let w = dt.len();
    if !complex {
        for (a, e) in a.chunks_exact(w).zip(e.chunks_exact_mut(w)) {
            for ((e, a), dt) in e.iter_mut().zip(a).zip(dt) {
                *e = (*dt * *a).exp();
            }
        }
        return;
    }
    let half = a.len() / 2;
    let (er, ei) = e.split_at_mut(half);
    let parts = a[..half].chunks_exact(w).zip(a[half..].chunks_exact(w));
    for ((ar, ai), (er, ei)) in parts.zip(er.chunks_exact_mut(w).zip(ei.chunks_exact_mut(w))) {
        for i in 0..w {
            let (size, (sin, cos)) = ((dt[i] * ar[i]).exp(), (dt[i] * ai[i]).sin_cos());
            (er[i], ei[i]) = (size * cos, size * sin);
        }
    }
}

/// `next = e·h + B·x`; `y += C·next` (complex: 2·Re).
#[inline(always)]
pub(super) fn step<T: Real>(
    complex: bool,
    e: &[T],
    h: &[T],
    next: &mut [T],
    x: &[T],
    mix: Mix<'_, T>,
    y: &mut [T],
) {
    if complex { step_complex(e, h, next, x, mix, y) } else { step_real(e, h, next, x, mix, y) }
}

#[inline(always)]
fn step_real<T: Real>(e: &[T], h: &[T], next: &mut [T], x: &[T], mix: Mix<'_, T>, y: &mut [T]) {
    let w = y.len();
    let rows = e.chunks_exact(w).zip(h.chunks_exact(w)).zip(next.chunks_exact_mut(w));
    match mix {
        Mix::Row { b, c } => {
            for (((e, h), next), (b, c)) in rows.zip(b.iter().zip(c)) {
                for i in 0..w {
                    let v = (e[i] * h[i] + *b * x[i]).flush();
                    next[i] = v;
                    y[i] += *c * v;
                }
            }
        }
        Mix::Fixed { b, c } => {
            for (((e, h), next), (b, c)) in rows.zip(b.chunks_exact(w).zip(c.chunks_exact(w))) {
                for i in 0..w {
                    let v = (e[i] * h[i] + b[i] * x[i]).flush();
                    next[i] = v;
                    y[i] += c[i] * v;
                }
            }
        }
    }
}

#[inline(always)]
fn step_complex<T: Real>(e: &[T], h: &[T], next: &mut [T], x: &[T], mix: Mix<'_, T>, y: &mut [T]) {
    let (w, half) = (y.len(), e.len() / 2);
    let (next_r, next_i) = next.split_at_mut(half);
    let two = T::of(2.0);
    for k in 0..half / w {
        let row = k * w..(k + 1) * w;
        let imag = half + k * w..half + (k + 1) * w;
        let (er, ei, hr, hi) = (&e[row.clone()], &e[imag.clone()], &h[row.clone()], &h[imag.clone()]);
        let (nr, ni) = (&mut next_r[row.clone()], &mut next_i[row.clone()]);
        match mix {
            Mix::Row { b, c } => {
                let (br, bi, cr, ci) = (b[2 * k], b[2 * k + 1], two * c[2 * k], two * c[2 * k + 1]);
                for i in 0..w {
                    let re = (er[i] * hr[i] - ei[i] * hi[i] + br * x[i]).flush();
                    let im = (er[i] * hi[i] + ei[i] * hr[i] + bi * x[i]).flush();
                    (nr[i], ni[i]) = (re, im);
                    y[i] += cr * re - ci * im;
                }
            }
            Mix::Fixed { b, c } => {
                let (br, bi, cr, ci) = (&b[row.clone()], &b[imag.clone()], &c[row], &c[imag]);
                for i in 0..w {
                    let re = (er[i] * hr[i] - ei[i] * hi[i] + br[i] * x[i]).flush();
                    let im = (er[i] * hi[i] + ei[i] * hr[i] + bi[i] * x[i]).flush();
                    (nr[i], ni[i]) = (re, im);
                    y[i] += two * (cr[i] * re - ci[i] * im);
                }
            }
        }
    }
}

/// What one row's backward reads.
pub(super) struct Seen<'a, T> {
    /// e of this row.
    pub e: &'a [T],
    /// h before this row.
    pub before: &'a [T],
    /// h after it.
    pub after: &'a [T],
    /// What drove it.
    pub x: &'a [T],
    /// ȳ, the gradient of y.
    pub gy: &'a [T],
    /// B and C.
    pub mix: Mix<'a, T>,
}

/// What one row's backward writes.
pub(super) struct Found<'a, T> {
    /// In: the gradient of h after this row from the future; out: of h before it.
    pub gh: &'a mut [T],
    /// Set: the gradient of e.
    pub ge: &'a mut [T],
    /// Added to: the gradient of x.
    pub gx: &'a mut [T],
    /// Added to: the gradients of B and C.
    pub mix: MixGrad<'a, T>,
    /// Room for one row of g, two for complex.
    pub room: &'a mut [T],
}

/// The backward of [`step`].
#[inline(always)]
pub(super) fn back<T: Real>(complex: bool, seen: &Seen<'_, T>, found: &mut Found<'_, T>) {
    if complex { back_complex(seen, found) } else { back_real(seen, found) }
}

#[inline(always)]
fn back_real<T: Real>(seen: &Seen<'_, T>, found: &mut Found<'_, T>) {
    let (w, x, gy) = (seen.gy.len(), seen.x, seen.gy);
    let gx = &mut found.gx[..w];
    let rows = seen.e.chunks_exact(w).zip(seen.before.chunks_exact(w)).zip(seen.after.chunks_exact(w));
    let rows = rows.zip(found.gh.chunks_exact_mut(w)).zip(found.ge.chunks_exact_mut(w)).enumerate();
    for (k, ((((e, before), after), gh), ge)) in rows {
        match (&seen.mix, &mut found.mix) {
            (Mix::Row { b, c }, MixGrad::Row { b: gb, c: gc }) => {
                let (b, c, room) = (b[k], c[k], &mut found.room[..w]);
                for i in 0..w {
                    let g = gh[i] + c * gy[i];
                    gx[i] += g * b;
                    ge[i] = g * before[i];
                    gh[i] = (g * e[i]).flush();
                    room[i] = g;
                }
                gb[k] += dot(room, x);
                gc[k] += dot(after, gy);
            }
            (Mix::Fixed { b, c }, MixGrad::Fixed { b: gb, c: gc }) => {
                let (b, c) = (&b[k * w..][..w], &c[k * w..][..w]);
                let (gb, gc) = (&mut gb[k * w..][..w], &mut gc[k * w..][..w]);
                for i in 0..w {
                    let g = gh[i] + c[i] * gy[i];
                    gc[i] += gy[i] * after[i];
                    gb[i] += g * x[i];
                    gx[i] += g * b[i];
                    ge[i] = g * before[i];
                    gh[i] = (g * e[i]).flush();
                }
            }
            _ => debug_assert!(false, "gradients are of the kind of the coefficients"),
        }
    }
}

#[inline(always)]
fn back_complex<T: Real>(seen: &Seen<'_, T>, found: &mut Found<'_, T>) {
    let (w, half, x, gy) = (seen.gy.len(), seen.e.len() / 2, seen.x, seen.gy);
    let two = T::of(2.0);
    let gx = &mut found.gx[..w];
    let (gh_r, gh_i) = found.gh.split_at_mut(half);
    let (ge_r, ge_i) = found.ge.split_at_mut(half);
    let (room_r, room_i) = found.room.split_at_mut(w);
    let room_i = &mut room_i[..w];
    for k in 0..half / w {
        let (row, imag) = (k * w..(k + 1) * w, half + k * w..half + (k + 1) * w);
        let (er, ei) = (&seen.e[row.clone()], &seen.e[imag.clone()]);
        let (pr, pi) = (&seen.before[row.clone()], &seen.before[imag.clone()]);
        let (hr, hi) = (&seen.after[row.clone()], &seen.after[imag.clone()]);
        let (ghr, ghi) = (&mut gh_r[row.clone()], &mut gh_i[row.clone()]);
        let (ger, gei) = (&mut ge_r[row.clone()], &mut ge_i[row.clone()]);
        match (&seen.mix, &mut found.mix) {
            (Mix::Row { b, c }, MixGrad::Row { b: gb, c: gc }) => {
                let (br, bi, cr, ci) = (b[2 * k], b[2 * k + 1], two * c[2 * k], two * c[2 * k + 1]);
                for i in 0..w {
                    let (gr, gi) = (ghr[i] + cr * gy[i], ghi[i] - ci * gy[i]);
                    gx[i] += gr * br + gi * bi;
                    (ger[i], gei[i]) = times_conjugate((gr, gi), (pr[i], pi[i]));
                    let past = times_conjugate((gr, gi), (er[i], ei[i]));
                    (ghr[i], ghi[i]) = (past.0.flush(), past.1.flush());
                    (room_r[i], room_i[i]) = (gr, gi);
                }
                gb[2 * k] += dot(room_r, x);
                gb[2 * k + 1] += dot(room_i, x);
                gc[2 * k] += two * dot(hr, gy);
                gc[2 * k + 1] -= two * dot(hi, gy);
            }
            (Mix::Fixed { b, c }, MixGrad::Fixed { b: gb, c: gc }) => {
                let (br, bi, cr, ci) = (&b[row.clone()], &b[imag.clone()], &c[row.clone()], &c[imag.clone()]);
                let ((gbr, gbi), (gcr, gci)) = (gb.split_at_mut(half), gc.split_at_mut(half));
                let (gbr, gbi) = (&mut gbr[row.clone()], &mut gbi[row.clone()]);
                let (gcr, gci) = (&mut gcr[row.clone()], &mut gci[row.clone()]);
                for i in 0..w {
                    let y2 = two * gy[i];
                    let (gr, gi) = (ghr[i] + cr[i] * y2, ghi[i] - ci[i] * y2);
                    gcr[i] += y2 * hr[i];
                    gci[i] -= y2 * hi[i];
                    gbr[i] += gr * x[i];
                    gbi[i] += gi * x[i];
                    gx[i] += gr * br[i] + gi * bi[i];
                    (ger[i], gei[i]) = times_conjugate((gr, gi), (pr[i], pi[i]));
                    let past = times_conjugate((gr, gi), (er[i], ei[i]));
                    (ghr[i], ghi[i]) = (past.0.flush(), past.1.flush());
                }
            }
            _ => debug_assert!(false, "gradients are of the kind of the coefficients"),
        }
    }
}

/// a·conj(b).
#[inline(always)]
fn times_conjugate<T: Real>(a: (T, T), b: (T, T)) -> (T, T) {
    (a.0 * b.0 + a.1 * b.1, a.1 * b.0 - a.0 * b.1)
}

/// The backward of [`decay`]: from the gradient of e to those of Δ `[w]` and A `[rows, w]`, both added to.
#[inline(always)]
pub(super) fn decay_back<T: Real>(
    complex: bool,
    dt: &[T],
    a: &[T],
    e: &[T],
    ge: &[T],
    gdt: &mut [T],
    ga: &mut [T],
) {
    let w = dt.len();
    let gdt = &mut gdt[..w];
    let half = if complex { a.len() / 2 } else { a.len() };
    let (ga, ga_imag) = ga.split_at_mut(half);
    for k in 0..half / w {
        let (row, imag) = (k * w..(k + 1) * w, half + k * w..half + (k + 1) * w);
        let (ar, er, ger) = (&a[row.clone()], &e[row.clone()], &ge[row.clone()]);
        let gar = &mut ga[row.clone()];
        if !complex {
            for i in 0..w {
                let g = ger[i] * er[i];
                gdt[i] += g * ar[i];
                gar[i] += g * dt[i];
            }
            continue;
        }
        let (ai, ei, gei, gai) = (&a[imag.clone()], &e[imag.clone()], &ge[imag], &mut ga_imag[row]);
        for i in 0..w {
            let (gr, gi) = times_conjugate((ger[i], gei[i]), (er[i], ei[i]));
            gdt[i] += gr * ar[i] + gi * ai[i];
            gar[i] += gr * dt[i];
            gai[i] += gi * dt[i];
        }
    }
}
