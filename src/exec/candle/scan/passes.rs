//! The recurrence over all rows: forward, and backward chunk by chunk from the saved states.

use super::super::math::Real;
use super::rows::{Found, Mix, MixGrad, Seen, back, decay, decay_back, step};
use super::{BLOCK, CHUNK, ScanShape};

/// The coefficients of w neighbouring channels, gathered: `[R, w]` each, D `[w]`.
struct Block<T> {
    c0: usize,
    w: usize,
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
    skip: Vec<T>,
}

/// Columns `c0 .. c0 + w` of a `[rows, d]` table.
fn gather<T: Real>(table: &[T], d: usize, c0: usize, w: usize) -> Vec<T> {
    table.chunks_exact(d).flat_map(|row| &row[c0..c0 + w]).copied().collect()
}

/// Puts a block back into columns `c0 ..` of a `[rows, d]` table, adding.
fn scatter<T: Real>(table: &mut [T], d: usize, c0: usize, block: &[T]) {
    let w = block.len() / (table.len() / d).max(1);
    if w == 0 {
        return;
    }
    for (row, block) in table.chunks_exact_mut(d).zip(block.chunks_exact(w)) {
        for (x, g) in row[c0..].iter_mut().zip(block) {
            *x += *g;
        }
    }
}

/// d cut into blocks of about equal width, whole vectors where it can be: (first channel, width).
fn blocks(d: usize) -> impl Iterator<Item = (usize, usize)> {
    let width = d.div_ceil(d.div_ceil(BLOCK)).next_multiple_of(16);
    (0..d).step_by(width).map(move |c0| (c0, width.min(d - c0)))
}

impl<T: Real> Block<T> {
    fn new(shape: &ScanShape, params: &[T], c0: usize, w: usize) -> Self {
        let (d, len) = (shape.d, shape.state_len());
        let table = |i: usize| gather(&params[i * len..(i + 1) * len], d, c0, w);
        let fixed = |i: usize| if shape.selective { Vec::new() } else { table(i) };
        let skip = params[params.len() - d..][c0..c0 + w].to_vec();
        Self { c0, w, a: table(0), b: fixed(1), c: fixed(2), skip }
    }

    /// (u, Δ, B and C) of one row for these channels; Δ is empty for the time-invariant scan.
    #[inline(always)]
    fn split<'a>(&'a self, shape: &ScanShape, row: &'a [T]) -> (&'a [T], &'a [T], Mix<'a, T>) {
        let (d, w) = (shape.d, self.w);
        let u = &row[self.c0..][..w];
        if !shape.selective {
            return (u, &[], Mix::Fixed { b: &self.b, c: &self.c });
        }
        let (b, c) = row[2 * d..].split_at(shape.state_rows());
        (u, &row[d + self.c0..][..w], Mix::Row { b, c })
    }
}

/// x = Δ·u.
#[inline(always)]
fn product<T: Real>(x: &mut [T], dt: &[T], u: &[T]) {
    for ((x, dt), u) in x.iter_mut().zip(dt).zip(u) {
        *x = *dt * *u;
    }
}

/// (y, states) for all streams; layouts are on the module's page.
#[inline(always)]
pub(super) fn forward<T: Real>(
    shape: ScanShape,
    t: usize,
    rows: &[T],
    params: &[T],
    h0: &[T],
) -> (Vec<T>, Vec<T>) {
    let (d, state, kept) = (shape.d, shape.state_len(), shape.states_len(t, CHUNK));
    let streams = h0.len() / state;
    let (mut out, mut states) = (vec![T::zero(); streams * t * d], vec![T::zero(); streams * kept]);
    let per_stream = rows.chunks_exact(t * shape.row_width()).zip(h0.chunks_exact(state));
    let results = out.chunks_exact_mut(t * d).zip(states.chunks_exact_mut(kept));
    for ((rows, h0), (y, states)) in per_stream.zip(results) {
        for (c0, w) in blocks(d) {
            let block = Block::new(&shape, params, c0, w);
            forward_block(&shape, &block, rows, gather(h0, d, c0, w), y, states);
        }
    }
    (out, states)
}

#[inline(always)]
fn forward_block<T: Real>(
    shape: &ScanShape,
    block: &Block<T>,
    rows: &[T],
    mut h: Vec<T>,
    y: &mut [T],
    states: &mut [T],
) {
    let (d, w, complex) = (shape.d, block.w, shape.complex);
    let (mut next, mut e, mut x) = (h.clone(), block.a.clone(), vec![T::zero(); w]);
    let (last, saved) = states.split_at_mut(shape.state_len());
    for (t, (row, y)) in rows.chunks_exact(shape.row_width()).zip(y.chunks_exact_mut(d)).enumerate() {
        if t > 0 && t % CHUNK == 0 {
            scatter(&mut saved[(t / CHUNK - 1) * shape.state_len()..][..shape.state_len()], d, block.c0, &h);
        }
        let y = &mut y[block.c0..][..w];
        let (u, dt, mix) = block.split(shape, row);
        product(y, &block.skip, u);
        if shape.selective {
            decay(complex, dt, &block.a, &mut e);
            product(&mut x, dt, u);
            step(complex, &e, &h, &mut next, &x, mix, y);
        } else {
            step(complex, &e, &h, &mut next, u, mix, y);
        }
        std::mem::swap(&mut h, &mut next);
    }
    scatter(last, d, block.c0, &h);
}

/// The gradients of the three arguments.
pub(super) struct Grads<T> {
    pub rows: Vec<T>,
    pub params: Vec<T>,
    pub h0: Vec<T>,
}

/// Gradients from those of y and of the final state.
#[inline(always)]
pub(super) fn backward<T: Real>(
    shape: ScanShape,
    t: usize,
    [rows, params, h0, states, gy, gh]: [&[T]; 6],
) -> Grads<T> {
    let (d, state, kept) = (shape.d, shape.state_len(), shape.states_len(t, CHUNK));
    let zeros = |n: usize| vec![T::zero(); n];
    let mut grads = Grads { rows: zeros(rows.len()), params: zeros(params.len()), h0: zeros(h0.len()) };
    let row_len = t * shape.row_width();
    for s in 0..h0.len() / state {
        let stream = Stream {
            rows: &rows[s * row_len..][..row_len],
            h0: &h0[s * state..][..state],
            saved: &states[s * kept..][state..kept],
            gy: &gy[s * t * d..][..t * d],
        };
        for (c0, w) in blocks(d) {
            let block = Block::new(&shape, params, c0, w);
            let gh = gather(&gh[s * state..][..state], d, c0, w);
            let mut work = Work::new(&shape, &block, gh);
            work.run(&shape, &block, &stream, &mut grads.rows[s * row_len..][..row_len]);
            scatter(&mut grads.h0[s * state..][..state], d, c0, &work.gh);
            work.add_params(&shape, &block, &mut grads.params);
        }
    }
    grads
}

/// What backward reads of one stream.
struct Stream<'a, T> {
    rows: &'a [T],
    h0: &'a [T],
    saved: &'a [T],
    gy: &'a [T],
}

/// The buffers of one block's backward.
struct Work<T> {
    /// h before each row of a chunk and after its last: `[CHUNK + 1, R, w]`.
    h: Vec<T>,
    /// e of each row of a chunk: `[CHUNK, R, w]`; of all rows, for the time-invariant scan: `[R, w]`.
    e: Vec<T>,
    x: Vec<T>,
    y: Vec<T>,
    gx: Vec<T>,
    room: Vec<T>,
    ge: Vec<T>,
    gh: Vec<T>,
    ga: Vec<T>,
    gb: Vec<T>,
    gc: Vec<T>,
    gskip: Vec<T>,
}

impl<T: Real> Work<T> {
    fn new(shape: &ScanShape, block: &Block<T>, gh: Vec<T>) -> Self {
        let zeros = |n: usize| vec![T::zero(); n];
        let (w, len) = (block.w, block.a.len());
        let e = if shape.selective { zeros(CHUNK * len) } else { block.a.clone() };
        Self {
            h: zeros((CHUNK + 1) * len),
            e,
            x: zeros(w),
            y: zeros(w),
            gx: zeros(w),
            room: zeros(2 * w),
            ge: zeros(len),
            gh,
            ga: zeros(len),
            gb: zeros(block.b.len()),
            gc: zeros(block.c.len()),
            gskip: zeros(w),
        }
    }

    #[inline(always)]
    fn run(&mut self, shape: &ScanShape, block: &Block<T>, stream: &Stream<'_, T>, grad_rows: &mut [T]) {
        let (d, width, state) = (shape.d, shape.row_width(), shape.state_len());
        let chunk_count = stream.rows.len().div_ceil(CHUNK * width);
        for chunk in (0..chunk_count).rev() {
            let start =
                if chunk == 0 { stream.h0 } else { &stream.saved[(chunk - 1) * state..chunk * state] };
            let end = (stream.rows.len() / width).min((chunk + 1) * CHUNK);
            let rows = &stream.rows[chunk * CHUNK * width..end * width];
            self.recompute(shape, block, rows, start);
            let gy = &stream.gy[chunk * CHUNK * d..end * d];
            let grad_rows = &mut grad_rows[chunk * CHUNK * width..end * width];
            let each =
                rows.chunks_exact(width).zip(gy.chunks_exact(d)).zip(grad_rows.chunks_exact_mut(width));
            for (t, ((row, gy), grad_row)) in each.enumerate().rev() {
                self.back_row(shape, block, t, row, &gy[block.c0..][..block.w], grad_row);
            }
        }
    }

    /// h and e of a chunk's rows from the state before it.
    #[inline(always)]
    fn recompute(&mut self, shape: &ScanShape, block: &Block<T>, rows: &[T], start: &[T]) {
        let (len, complex) = (block.a.len(), shape.complex);
        for (to, from) in self.h.chunks_exact_mut(block.w).zip(start.chunks_exact(shape.d)) {
            to.copy_from_slice(&from[block.c0..][..block.w]);
        }
        for (t, row) in rows.chunks_exact(shape.row_width()).enumerate() {
            let (u, dt, mix) = block.split(shape, row);
            let (h, next) = self.h[t * len..].split_at_mut(len);
            let next = &mut next[..len];
            if shape.selective {
                let e = &mut self.e[t * len..][..len];
                decay(complex, dt, &block.a, e);
                product(&mut self.x, dt, u);
                step(complex, e, h, next, &self.x, mix, &mut self.y);
            } else {
                step(complex, &self.e, h, next, u, mix, &mut self.y);
            }
        }
    }

    #[inline(always)]
    fn back_row(
        &mut self,
        shape: &ScanShape,
        block: &Block<T>,
        t: usize,
        row: &[T],
        gy: &[T],
        grad_row: &mut [T],
    ) {
        let (len, w, d, c0) = (block.a.len(), block.w, shape.d, block.c0);
        let (u, dt, mix) = block.split(shape, row);
        let (gu, gmix) = grad_row.split_at_mut(d);
        let gu = &mut gu[c0..][..w];
        let (before, after) = self.h[t * len..].split_at(len);
        for (((gu, gskip), gy), (u, skip)) in
            gu.iter_mut().zip(&mut self.gskip).zip(gy).zip(u.iter().zip(&block.skip))
        {
            *gu += *skip * *gy;
            *gskip += *u * *gy;
        }
        let scale = T::of(if shape.complex { 2.0 } else { 1.0 });
        for (scaled, gy) in self.y.iter_mut().zip(gy) {
            *scaled = scale * *gy;
        }
        let gy = &self.y;
        if !shape.selective {
            let seen = Seen { e: &self.e, before, after: &after[..len], x: u, gy, mix };
            let mix = MixGrad::Fixed { b: &mut self.gb, c: &mut self.gc };
            let (gh, ge, room) = (&mut self.gh, &mut self.ge, &mut self.room);
            back(shape.complex, &seen, &mut Found { gh, ge, gx: gu, mix, room });
            for (ga, ge) in self.ga.iter_mut().zip(&self.ge) {
                *ga += *ge;
            }
            return;
        }
        let (gdt, gmix) = gmix.split_at_mut(d);
        let (gb, gc) = gmix.split_at_mut(shape.state_rows());
        product(&mut self.x, dt, u);
        self.gx.fill(T::zero());
        let e = &self.e[t * len..][..len];
        let seen = Seen { e, before, after: &after[..len], x: &self.x, gy, mix };
        let (gh, ge, gx, room) = (&mut self.gh, &mut self.ge, &mut self.gx, &mut self.room);
        back(shape.complex, &seen, &mut Found { gh, ge, gx, mix: MixGrad::Row { b: gb, c: gc }, room });
        let gdt = &mut gdt[c0..][..w];
        decay_back(shape.complex, (dt, &block.a, e, &self.ge), gdt, &mut self.ga);
        for (((gu, gdt), gx), (u, dt)) in gu.iter_mut().zip(gdt).zip(&self.gx).zip(u.iter().zip(dt)) {
            *gu += *gx * *dt;
            *gdt += *gx * *u;
        }
    }

    fn add_params(&self, shape: &ScanShape, block: &Block<T>, params: &mut [T]) {
        let (d, len, tail) = (shape.d, shape.state_len(), params.len() - shape.d);
        for (i, table) in [&self.ga, &self.gb, &self.gc].into_iter().enumerate() {
            if !table.is_empty() {
                scatter(&mut params[i * len..(i + 1) * len], d, block.c0, table);
            }
        }
        scatter(&mut params[tail..], d, block.c0, &self.gskip);
    }
}
