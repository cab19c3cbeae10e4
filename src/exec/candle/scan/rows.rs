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

/// e = exp(Δ·A), 0 where too small to carry anything; complex A as N real rows, then N imaginary rows.
#[inline(always)]
pub(super) fn decay<T: Real>(complex: bool, dt: &[T], a: &[T], e: &mut [T]) {
    let w = dt.len();
    if !complex {
        for (a, e) in a.chunks_exact(w).zip(e.chunks_exact_mut(w)) {
            for ((e, a), dt) in e.iter_mut().zip(a).zip(dt) {
                *e = (*dt * *a).exp().flush();
            }
        }
        return;
    }
    let half = a.len() / 2;
    let (er, ei) = e.split_at_mut(half);
    let parts = a[..half].chunks_exact(w).zip(a[half..].chunks_exact(w));
    for ((ar, ai), (er, ei)) in parts.zip(er.chunks_exact_mut(w).zip(ei.chunks_exact_mut(w))) {
        for i in 0..w {
            let (size, (sin, cos)) = ((dt[i] * ar[i]).exp().flush(), (dt[i] * ai[i]).sin_cos());
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
    /// ȳ, the gradient of y; 2·ȳ for complex A.
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
    let g = &mut found.room[..w];
    let rows = seen.e.chunks_exact(w).zip(seen.before.chunks_exact(w)).zip(seen.after.chunks_exact(w));
    let rows = rows.zip(found.gh.chunks_exact_mut(w)).zip(found.ge.chunks_exact_mut(w)).enumerate();
    for (k, ((((e, before), after), gh), ge)) in rows {
        g.copy_from_slice(gh);
        match (&seen.mix, &mut found.mix) {
            (Mix::Row { b, c }, MixGrad::Row { b: gb, c: gc }) => {
                add_scaled(g, gy, c[k]);
                add_scaled(found.gx, g, b[k]);
                gb[k] += dot(g, x);
                gc[k] += dot(after, gy);
            }
            (Mix::Fixed { b, c }, MixGrad::Fixed { b: gb, c: gc }) => {
                let at = k * w..(k + 1) * w;
                add_product(g, &c[at.clone()], gy);
                add_product(found.gx, g, &b[at.clone()]);
                add_product(&mut gb[at.clone()], g, x);
                add_product(&mut gc[at], gy, after);
            }
            _ => debug_assert!(false, "gradients are of the kind of the coefficients"),
        }
        pass(gh, ge, g, e, before);
    }
}

#[inline(always)]
fn back_complex<T: Real>(seen: &Seen<'_, T>, found: &mut Found<'_, T>) {
    let (w, half, x, gy) = (seen.gy.len(), seen.e.len() / 2, seen.x, seen.gy);
    let (gh_r, gh_i) = found.gh.split_at_mut(half);
    let (ge_r, ge_i) = found.ge.split_at_mut(half);
    let (gr, gi) = found.room.split_at_mut(w);
    let gi = &mut gi[..w];
    for k in 0..half / w {
        let (re, im) = (k * w..(k + 1) * w, half + k * w..half + (k + 1) * w);
        let (hr, hi) = (&seen.after[re.clone()], &seen.after[im.clone()]);
        gr.copy_from_slice(&gh_r[re.clone()]);
        gi.copy_from_slice(&gh_i[re.clone()]);
        match (&seen.mix, &mut found.mix) {
            (Mix::Row { b, c }, MixGrad::Row { b: gb, c: gc }) => {
                add_scaled(gr, gy, c[2 * k]);
                add_scaled(gi, gy, -c[2 * k + 1]);
                add_scaled(found.gx, gr, b[2 * k]);
                add_scaled(found.gx, gi, b[2 * k + 1]);
                gb[2 * k] += dot(gr, x);
                gb[2 * k + 1] += dot(gi, x);
                gc[2 * k] += dot(hr, gy);
                gc[2 * k + 1] -= dot(hi, gy);
            }
            (Mix::Fixed { b, c }, MixGrad::Fixed { b: gb, c: gc }) => {
                add_product(gr, &c[re.clone()], gy);
                sub_product(gi, &c[im.clone()], gy);
                add_product(found.gx, gr, &b[re.clone()]);
                add_product(found.gx, gi, &b[im.clone()]);
                add_product(&mut gb[re.clone()], gr, x);
                add_product(&mut gb[im.clone()], gi, x);
                add_product(&mut gc[re.clone()], gy, hr);
                sub_product(&mut gc[im.clone()], gy, hi);
            }
            _ => debug_assert!(false, "gradients are of the kind of the coefficients"),
        }
        let (er, ei) = (&seen.e[re.clone()], &seen.e[im.clone()]);
        let (pr, pi) = (&seen.before[re.clone()], &seen.before[im]);
        pass_conjugate(&mut ge_r[re.clone()], &mut ge_i[re.clone()], gr, gi, pr, pi);
        pass_conjugate(&mut gh_r[re.clone()], &mut gh_i[re], gr, gi, er, ei);
    }
}

// The loops below are functions of their own so that the compiler knows, from the arguments, that what they write overlaps
// nothing they read: without that it does not vectorise them.

/// y += s·x.
#[inline(always)]
fn add_scaled<T: Real>(y: &mut [T], x: &[T], s: T) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += s * *x;
    }
}

/// y += a·b.
#[inline(always)]
fn add_product<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
    for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
        *y += *a * *b;
    }
}

/// y −= a·b.
#[inline(always)]
fn sub_product<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
    for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
        *y -= *a * *b;
    }
}

/// ē = g·h_{t−1}; h̄_{t−1} = g·e.
#[inline(always)]
fn pass<T: Real>(gh: &mut [T], ge: &mut [T], g: &[T], e: &[T], before: &[T]) {
    for ((gh, ge), (g, (e, before))) in gh.iter_mut().zip(ge).zip(g.iter().zip(e.iter().zip(before))) {
        *ge = (*g * *before).flush();
        *gh = (*g * *e).flush();
    }
}

/// (out_r, out_i) = g·conj(x).
#[inline(always)]
fn pass_conjugate<T: Real>(out_r: &mut [T], out_i: &mut [T], gr: &[T], gi: &[T], xr: &[T], xi: &[T]) {
    let given = gr.iter().zip(gi).zip(xr.iter().zip(xi));
    for ((out_r, out_i), ((gr, gi), (xr, xi))) in out_r.iter_mut().zip(out_i).zip(given) {
        let out = times_conjugate((*gr, *gi), (*xr, *xi));
        (*out_r, *out_i) = (out.0.flush(), out.1.flush());
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
    (dt, a, e, ge): (&[T], &[T], &[T], &[T]),
    gdt: &mut [T],
    ga: &mut [T],
) {
    let w = dt.len();
    let half = if complex { a.len() / 2 } else { a.len() };
    let (ga, ga_imag) = ga.split_at_mut(half);
    for k in 0..half / w {
        let (re, im) = (k * w..(k + 1) * w, half + k * w..half + (k + 1) * w);
        let (ar, er, ger) = (&a[re.clone()], &e[re.clone()], &ge[re.clone()]);
        let gar = &mut ga[re.clone()];
        if complex {
            let (ai, ei, gei) = (&a[im.clone()], &e[im.clone()], &ge[im]);
            let given = er.iter().zip(ei).zip(ger.iter().zip(gei));
            exponent_conjugate(gdt, gar, &mut ga_imag[re], dt, (ar, ai), given);
        } else {
            exponent(gdt, gar, dt, ar, er.iter().zip(ger));
        }
    }
}

/// With g = ē·e: Δ̄ += g·A, Ā += g·Δ.
#[inline(always)]
fn exponent<'a, T: Real>(
    gdt: &mut [T],
    ga: &mut [T],
    dt: &[T],
    a: &[T],
    given: impl Iterator<Item = (&'a T, &'a T)>,
) {
    for ((gdt, ga), ((dt, a), (e, ge))) in gdt.iter_mut().zip(ga).zip(dt.iter().zip(a).zip(given)) {
        let g = *ge * *e;
        *gdt += g * *a;
        *ga += g * *dt;
    }
}

/// With g = ē·conj(e): Δ̄ += Re(g·conj A), Ā += g·Δ.
#[inline(always)]
fn exponent_conjugate<'a, T: Real>(
    gdt: &mut [T],
    gar: &mut [T],
    gai: &mut [T],
    dt: &[T],
    (ar, ai): (&[T], &[T]),
    given: impl Iterator<Item = ((&'a T, &'a T), (&'a T, &'a T))>,
) {
    let given = dt.iter().zip(ar.iter().zip(ai)).zip(given);
    for ((gdt, (gar, gai)), ((dt, (ar, ai)), ((er, ei), (ger, gei)))) in
        gdt.iter_mut().zip(gar.iter_mut().zip(gai)).zip(given)
    {
        let (gr, gi) = times_conjugate((*ger, *gei), (*er, *ei));
        *gdt += gr * *ar + gi * *ai;
        *gar += gr * *dt;
        *gai += gi * *dt;
    }
}
