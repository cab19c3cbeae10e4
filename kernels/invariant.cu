// The time-invariant recurrence h ← Ā·h + B̄·u, y = C·h + D·u (2·Re for complex A) by chunks of CHUNK rows, as sums of products that no
// row waits for (the blocks of a semiseparable matrix: arXiv 2405.21060, §6, here with a decay a state). With h₀ the state before a
// chunk and ζ = 2 for complex A, else 1:
//
//     y_t  = Σ_{j≤t} K_j·u_{t−j} + ζ·Re(C·Ā^{t+1}·h₀),   K_j = ζ·Re(C·Ā^j·B̄), K_0 with D
//     h'   = Ā^CHUNK·h₀ + Σ_t Ā^{CHUNK−1−t}·B̄·u_t
//
// A state's numbers are R rows (complex: N real, N imaginary), and Ā^{CHUNK−1−t}·B̄ and ζ·C·Ā^{t+1} (imaginary part negated) are real
// tables `in`, `out` [CHUNK, R, d], so that only the tables, the carry and their gradients know of complex numbers. Launches, in
// src/exec/candle/cuda/invariant.rs:
//
//     invariant_tables   in, out, decays, and of K each state's share
//     invariant_in       each chunk's own share of its last state
//     invariant_carry    the states before every chunk, one after the other, and the last
//     invariant_out      y
//
// The way back is the same from the last row to the first with `out` and `in` exchanged: shares of g from ȳ, a carry with conjugates
// (and the gradients of Ā^CHUNK and of the last chunk's decay), ū. The tables' gradients are sums over chunks of a row and a state:
// out's of ȳ_t·h₀, in's of u_t·g, K's of ȳ_t·u_{t−j}; `invariant_back` takes them to Ā, B̄, C, D.
//
// The tables' entries are computed in double; K is the sum over the states of entries in float. A row that is not finite makes up to 15
// rows before it of its chunk so (zeros times it are summed). A stream's last chunk may be shorter. Against `out` its rows are counted
// from its first, against `in` from its last. Half a warp is 16 neighbouring channels; its halves take different chunks. Sums have a
// fixed order.
#include "device.cuh"

#define CHUNK 32
#define LANES 16
// Chunks that a lane takes at once, and numbers of a state, or rows: WIDE·TILE sums in registers.
#define WIDE 8
#define TILE 16
// Rows or numbers that are fetched ahead of their products; the last of four is in use.
#define AHEAD 3

// What a state of size below 2^-100 is, where it is handed out.
__device__ static float flushed(float x) { return fabsf(x) < 7.8886091e-31f ? 0.0f : x; }

struct Number {
    double re, im;
};
__device__ static Number times(Number a, Number b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
// conj(a)·b, what a product's factor adds to the other's gradient.
__device__ static Number back_by(Number a, Number b) { return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re}; }
__device__ static Number plus(Number a, Number b) { return {a.re + b.re, a.im + b.im}; }
__device__ static Number scaled(Number a, double by) { return {a.re * by, a.im * by}; }

// The k-th number, or pair, of channel c in an [R, d] table.
__device__ static Number at(const float *table, int k, int c, int d, int n, int complex) {
    return {table[k * d + c], complex ? table[(n + k) * d + c] : 0.0f};
}
__device__ static void put(float *table, int k, int c, int d, int n, int complex, Number v) {
    table[k * d + c] = (float)v.re;
    if (complex) table[(n + k) * d + c] = (float)v.im;
}

// A double in two floats.
__device__ static void put_exact(float *table, long rest, int k, int c, int d, int n, int complex, Number v) {
    Number rounded = {(float)v.re, (float)v.im};
    put(table, k, c, d, n, complex, rounded);
    put(table + rest, k, c, d, n, complex, {v.re - rounded.re, v.im - rounded.im});
}

// in, out [CHUNK, R, d]; decays [4, R, d]: Ā^CHUNK, what rounding took from it, Ā^last, likewise; lags [N, CHUNK, d], whose sum over N is K.
// A thread a state of a channel.
extern "C" __global__ void invariant_tables(const float *params, float *in, float *out, float *decays, float *lags, int d, int n, int complex, int last) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, c = i % d, k = i / d, r = complex ? 2 * n : n;
    if (k >= n) return;
    long state = (long)r * d;
    Number a = at(params, k, c, d, n, complex), b = at(params + state, k, c, d, n, complex), q = at(params + 2 * state, k, c, d, n, complex);
    Number power = {1.0, 0.0};
    double zeta = complex ? 2.0 : 1.0, skip = k == 0 ? params[3 * state + c] : 0.0;
    for (int p = 0; p <= CHUNK; p++) {
        if (p < CHUNK) {
            Number first = times(power, b);
            put(in + (CHUNK - 1 - p) * state, k, c, d, n, complex, first);
            lags[((long)k * CHUNK + p) * d + c] = (float)(zeta * times(first, q).re + (p == 0 ? skip : 0.0));
        }
        if (p > 0) {
            Number row = scaled(times(power, q), zeta);
            put(out + (p - 1) * state, k, c, d, n, complex, {row.re, -row.im});
        }
        if (p == CHUNK) put_exact(decays, state, k, c, d, n, complex, power);
        if (p == last) put_exact(decays + 2 * state, state, k, c, d, n, complex, power);
        power = times(power, a);
    }
}

// The rows of a chunk as they are counted against a table: place p is row p·d numbers after `at`, if it is there (a bit each).
struct Rows {
    int at;
    unsigned there;

    __device__ bool has(int p) const { return there >> p & 1; }
    // x's number `offset` after row 0, of place p.
    __device__ float get(const float *x, int p, int offset) const { return has(p) ? x[at + offset] : 0.0f; }
};

// Of chunk m of all streams; nothing of it beyond the last.
__device__ static Rows rows_of(int m, int t, int d, int chunks, int count, bool from_last) {
    if (m >= count) return {0, 0};
    int k = m % chunks, rows = min(CHUNK, t - k * CHUNK), skipped = from_last ? CHUNK - rows : 0;
    return {(m / chunks * t + k * CHUNK - skipped) * d, (0xffffffffu >> (CHUNK - rows)) << skipped};
}

// [..][TILE/4][LANES][4]: four numbers of a lane are one load, and half a warp's channels a line that its other half shares.
__device__ static float *at_four(float *tile, int row, int i, int lane) { return tile + ((row * (TILE / 4) + i / 4) * LANES + lane) * 4 + i % 4; }

// sum[i][j] += w_i·v_j, with the TILE numbers of a row of such a tile.
__device__ static void add_products(float (&sum)[TILE][WIDE], const float *tile, int row, int lane, const float (&v)[WIDE]) {
#pragma unroll
    for (int i = 0; i < TILE; i += 4) {
        float4 four = *(const float4 *)at_four((float *)tile, row, i, lane);
        float w[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int j = 0; j < WIDE; j++) sum[i + k][j] = fmaf(w[k], v[j], sum[i + k][j]);
    }
}

// Adds to `sum` the products of TILE numbers of a tile's row p with v_p, for all `count` (a multiple of four) rows; `fetch(p, v)` gives v_p.
template <typename Fetch> __device__ static void add_all(float (&sum)[TILE][WIDE], const float *tile, int lane, int count, Fetch fetch) {
    float v[AHEAD + 1][WIDE];
#pragma unroll
    for (int p = 0; p < AHEAD; p++) fetch(p, v[p]);
#pragma unroll 1
    for (int p0 = 0; p0 < count; p0 += AHEAD + 1)
#pragma unroll
        for (int u = 0; u <= AHEAD; u++) {
            if (p0 + u + AHEAD < count) fetch(p0 + u + AHEAD, v[(u + AHEAD) % (AHEAD + 1)]);
            add_products(sum, tile, p0 + u, lane, v[u]);
        }
}

// states [chunks of all streams, R, d] = Σ_p table_p·x_p. Grid: 16 channels, TILE numbers of a state, a share of the chunks; 32 × 4 threads.
extern "C" __global__ void __launch_bounds__(128, 2)
    invariant_in(const float *x, const float *table, float *states, int t, int d, int r, int chunks, int count, int from_last) {
    __shared__ float4 tile[CHUNK * TILE / 4 * LANES];
    int lane = threadIdx.x % LANES, half = threadIdx.x / LANES, first = blockIdx.x * LANES, c = min(first + lane, d - 1), q0 = blockIdx.y * TILE;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < CHUNK * TILE * LANES; i += 128) {
        int l = i % LANES, q = i / LANES % TILE, p = i / (LANES * TILE);
        *at_four((float *)tile, p, q, l) = q0 + q < r && first + l < d ? table[((long)p * r + q0 + q) * d + first + l] : 0.0f;
    }
    __syncthreads();
    for (int m0 = (blockIdx.z * 4 + threadIdx.y) * 2 * WIDE; m0 < count; m0 += gridDim.z * 4 * 2 * WIDE) {
        int m = m0 + half * WIDE;
        float sum[TILE][WIDE] = {};
        Rows rows[WIDE];
#pragma unroll
        for (int j = 0; j < WIDE; j++) rows[j] = rows_of(m + j, t, d, chunks, count, from_last);
        add_all(sum, (float *)tile, lane, CHUNK, [&](int p, float (&v)[WIDE]) {
#pragma unroll
            for (int j = 0; j < WIDE; j++) v[j] = rows[j].get(x, p, p * d + c);
        });
        if (first + lane >= d) continue;
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            float *to = states + ((long)(m + j) * r + q0) * d + c;
#pragma unroll
            for (int q = 0; q < TILE; q++)
                if (m + j < count && q0 + q < r) to[q * d] = sum[q][j];
        }
    }
}

// y: Σ over the state's numbers q of table_q·h_q and over rows of K·x. Forward h is `first_states` before a stream's first chunk, else
// states[chunk], and y_t takes the rows before it; back h is states[chunk], and y_t takes the rows after it. Grid: 16 channels, TILE
// rows, a share of the chunks; 32 × 4 threads.
template <bool BACK>
__device__ static void out(const float *x, const float *table, const float *lags, const float *states, const float *first_states, float *y,
                           int t, int d, int r, int chunks, int count) {
    DYNAMIC_SHARED;
    int lane = threadIdx.x % LANES, half = threadIdx.x / LANES, first = blockIdx.x * LANES, c = min(first + lane, d - 1), i0 = blockIdx.y * TILE;
    // Of every number of a state its TILE rows, with zeros up to a multiple of four; then K, with zeros for the lags −TILE .. −1.
    int numbers = (r + AHEAD) / (AHEAD + 1) * (AHEAD + 1);
    float *tile = (float *)shared, *near = tile + numbers * TILE * LANES;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < numbers * TILE * LANES; i += 128) {
        int l = i % LANES, p = i / LANES % TILE, q = i / (LANES * TILE);
        *at_four(tile, q, p, l) = q < r && first + l < d ? table[((long)(i0 + p) * r + q) * d + first + l] : 0.0f;
    }
    for (int i = threadIdx.y * 32 + threadIdx.x; i < (TILE + CHUNK) * LANES; i += 128) {
        int l = i % LANES, j = i / LANES - TILE;
        near[i] = j >= 0 && first + l < d ? lags[j * d + first + l] : 0.0f;
    }
    __syncthreads();
    for (int m0 = (blockIdx.z * 4 + threadIdx.y) * 2 * WIDE; m0 < count; m0 += gridDim.z * 4 * 2 * WIDE) {
        int m = m0 + half * WIDE;
        float sum[TILE][WIDE] = {};
        const float *h[WIDE];
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            int k = min(m + j, count - 1);
            bool begins = !BACK && k % chunks == 0;
            h[j] = (begins ? first_states + (long)(k / chunks) * r * d : states + (long)k * r * d) + c;
        }
        add_all(sum, tile, lane, numbers, [&](int q, float (&v)[WIDE]) {
            int at = min(q, r - 1) * d;
#pragma unroll
            for (int j = 0; j < WIDE; j++) v[j] = h[j][at];
        });
        Rows rows[WIDE];
#pragma unroll
        for (int j = 0; j < WIDE; j++) rows[j] = rows_of(m + j, t, d, chunks, count, BACK);
#pragma unroll 1
        for (int s0 = BACK ? i0 : 0; s0 <= (BACK ? CHUNK - TILE : i0); s0 += TILE) {
            // Row s0 + u is so many lags from row i0 + p, for p = u = 0. From u to u + 1 each lag goes to the next p.
            int apart = BACK ? s0 - i0 : i0 - s0;
            float w[TILE], v[AHEAD + 1][WIDE];
            auto fetch = [&](int u) {
#pragma unroll
                for (int j = 0; j < WIDE; j++) v[u % (AHEAD + 1)][j] = rows[j].get(x, s0 + u, (s0 + u) * d + c);
            };
#pragma unroll
            for (int u = 0; u < AHEAD; u++) fetch(u);
#pragma unroll
            for (int p = 0; p < TILE; p++) w[p] = near[((BACK ? apart - p : apart + p) + TILE) * LANES + lane];
#pragma unroll
            for (int u = 0; u < TILE; u++) {
                if (u > 0) w[TILE - u] = near[((BACK ? apart + u : apart - u) + TILE) * LANES + lane];
                if (u + AHEAD < TILE) fetch(u + AHEAD);
#pragma unroll
                for (int p = 0; p < TILE; p++)
#pragma unroll
                    for (int j = 0; j < WIDE; j++) sum[p][j] = fmaf(w[(p - u + TILE) % TILE], v[u % (AHEAD + 1)][j], sum[p][j]);
            }
        }
        if (first + lane >= d) continue;
#pragma unroll
        for (int j = 0; j < WIDE; j++)
#pragma unroll
            for (int p = 0; p < TILE; p++)
                if (rows[j].has(i0 + p)) y[rows[j].at + (i0 + p) * d + c] = sum[p][j];
    }
}

extern "C" __global__ void __launch_bounds__(128, 2)
    invariant_out(const float *u, const float *table, const float *lags, const float *states, const float *h0, float *y, int t, int d, int r, int chunks, int count) {
    out<false>(u, table, lags, states, h0, y, t, d, r, chunks, count);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    invariant_out_back(const float *gy, const float *table, const float *lags, const float *grads, float *gu, int t, int d, int r, int chunks, int count) {
    out<true>(gy, table, lags, grads, grads, gu, t, d, r, chunks, count);
}

// What the carry takes at once, for their loads to overlap.
#define BATCH 16

struct Pair {
    float re, im;
};
// (e + rest)·h.
__device__ static Pair decayed(Pair e, Pair rest, Pair h, bool complex) {
    if (!complex) return {fmaf(e.re, h.re, rest.re * h.re), 0.0f};
    return {fmaf(e.re, h.re, fmaf(-e.im, h.im, fmaf(rest.re, h.re, -rest.im * h.im))), fmaf(e.re, h.im, fmaf(e.im, h.re, fmaf(rest.re, h.im, rest.im * h.re)))};
}

// A state of a channel in the chunks of a stream, and the decays over a whole chunk and over the last.
struct Carry {
    int at, im, chunks;
    long state;
    bool complex;
    Pair whole, whole_rest, last, last_rest;

    __device__ Pair get(const float *x) const { return {x[at], complex ? x[at + im] : 0.0f}; }
    __device__ void put(float *x, Pair v) const {
        x[at] = flushed(v.re);
        if (complex) x[at + im] = flushed(v.im);
    }
    // False for a thread that has no state.
    __device__ bool begin(const float *decays, int d, int n, int complex_, int chunks_) {
        at = blockIdx.x * blockDim.x + threadIdx.x, im = n * d, chunks = chunks_, complex = complex_, state = (long)(complex ? 2 * n : n) * d;
        if (at >= im) return false;
        whole = get(decays), whole_rest = get(decays + state), last = get(decays + 2 * state), last_rest = get(decays + 3 * state);
        return true;
    }
    __device__ Pair over(int k, Pair h) const { return k == chunks - 1 ? decayed(last, last_rest, h, complex) : decayed(whole, whole_rest, h, complex); }
};

// states [S, chunks, R, d]: in place of the chunks' own shares, the state before each, and the last in place of the first. Grid: a thread a
// state of a channel; streams.
extern "C" __global__ void invariant_carry(const float *decays, const float *h0, float *states, int d, int n, int complex, int chunks) {
    Carry z;
    if (!z.begin(decays, d, n, complex, chunks)) return;
    states += blockIdx.y * z.chunks * z.state;
    Pair h = z.get(h0 + blockIdx.y * z.state);
    for (int k0 = 0; k0 < chunks; k0 += BATCH) {
        Pair own[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) own[b] = z.get(states + min(k0 + b, chunks - 1) * z.state);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            int k = k0 + b;
            if (k >= chunks) break;
            if (k > 0) z.put(states + k * z.state, h);
            Pair e = z.over(k, h);
            h = {flushed(e.re + own[b].re), flushed(e.im + own[b].im)};
        }
    }
    z.put(states, h);
}

// The same back: grads [S, chunks, R, d], in place of the chunks' own shares of g the gradient of the state after each; gh0 [S, R, d];
// gdecays [S, 2, R, d], of Ā^CHUNK and of Ā^last. states and h0 as invariant_carry left them.
extern "C" __global__ void invariant_carry_back(const float *decays, const float *end, const float *states, const float *h0, float *grads, float *gh0,
                                                float *gdecays, int d, int n, int complex, int chunks) {
    Carry z;
    if (!z.begin(decays, d, n, complex, chunks)) return;
    long s = blockIdx.y;
    states += s * chunks * z.state, grads += s * chunks * z.state;
    z.whole.im = -z.whole.im, z.whole_rest.im = -z.whole_rest.im, z.last.im = -z.last.im, z.last_rest.im = -z.last_rest.im;
    // The sum over many chunks, and by which it is too great (Kahan 1965).
    Pair g = z.get(end + s * z.state), sum = {0.0f, 0.0f}, over = sum, sum_last = sum;
    for (int k0 = chunks - 1; k0 >= 0; k0 -= BATCH) {
        Pair own[BATCH], h[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            int k = max(k0 - b, 0);
            own[b] = z.get(grads + k * z.state);
            h[b] = z.get(k == 0 ? h0 + s * z.state : states + k * z.state);
        }
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            int k = k0 - b;
            if (k < 0) break;
            z.put(grads + k * z.state, g);
            // g·conj(h).
            Pair more = {fmaf(g.re, h[b].re, g.im * h[b].im), fmaf(g.im, h[b].re, -g.re * h[b].im)};
            if (k == chunks - 1) sum_last = more;
            else {
                more = {more.re - over.re, more.im - over.im};
                Pair all = {sum.re + more.re, sum.im + more.im};
                over = {(all.re - sum.re) - more.re, (all.im - sum.im) - more.im};
                sum = all;
            }
            Pair e = z.over(k, g);
            g = {e.re + own[b].re, e.im + own[b].im};
        }
    }
    z.put(gh0 + s * z.state, g);
    gdecays += s * 2 * z.state;
    gdecays[z.at] = sum.re, gdecays[z.state + z.at] = sum_last.re;
    if (complex) gdecays[z.at + z.im] = sum.im, gdecays[z.state + z.at + z.im] = sum_last.im;
}

// part [shares, CHUNK, R, d] = Σ over a share of the chunks of x_p·h_q; h as in `out`, `first_states` for a stream's first chunk unless
// from_last. Grid: 16 channels, 2·TILE numbers of a state, shares; 32 × 8 threads: a warp has AT_ONCE rows and TILE numbers, and copies
// one of the STAGED chunks that the block takes at a time.
#define AT_ONCE 8
#define STAGED 8
// Rows of x and of h that are staged of a chunk, and what keeps the halves of a warp out of each other's banks.
#define PITCH ((CHUNK + 2 * TILE) * LANES + LANES)

struct Stage {
    const float *x, *states, *first_states;
    int t, d, r, chunks, end, first, q0;
    bool from_last;

    // A row of 16 channels, or zeros, from lane `lane` of four.
    __device__ void row(float *to, const float *from, int lane) const {
        to += 4 * lane;
        int c = first + 4 * lane;
        if (from && d % 4 == 0 && c < d && ((size_t)from & 15) == 0) {
            copy_sixteen(to, from + c);
        } else {
            for (int i = 0; i < 4; i++) to[i] = from && c + i < d ? from[c + i] : 0.0f;
        }
    }

    // Sends for chunk m, by the threads of a warp.
    __device__ void copy(float *to, int m) const {
        Rows rows = rows_of(m, t, d, chunks, end, from_last);
        const float *h = nullptr;
        if (m < end) h = !from_last && m % chunks == 0 ? first_states + (long)(m / chunks) * r * d : states + (long)m * r * d;
        for (int i = threadIdx.x / 4; i < CHUNK; i += 8) row(to + i * LANES, rows.has(i) ? x + rows.at + i * d : nullptr, threadIdx.x % 4);
        for (int i = threadIdx.x / 4; i < 2 * TILE; i += 8) row(to + (CHUNK + i) * LANES, h && q0 + i < r ? h + (long)(q0 + i) * d : nullptr, threadIdx.x % 4);
    }
};

__device__ static void sums(const float *x, const float *states, const float *first_states, float *part, int t, int d, int r, int chunks, int count, bool from_last) {
    DYNAMIC_SHARED;
    int lane = threadIdx.x % LANES, half = threadIdx.x / LANES, first = blockIdx.x * LANES, c = first + lane;
    int p0 = threadIdx.y % 4 * AT_ONCE, q0 = threadIdx.y / 4 * TILE, share = (count + gridDim.z - 1) / gridDim.z;
    int begin = blockIdx.z * share, end = min(count, begin + share);
    Stage stage = {x, states, first_states, t, d, r, chunks, end, first, (int)blockIdx.y * 2 * TILE, from_last};
    float *now = (float *)shared, *next = now + STAGED * PITCH, sum[AT_ONCE][TILE] = {};
    stage.copy(now + threadIdx.y * PITCH, begin + threadIdx.y);
    copies_sent();
    for (int m0 = begin; m0 < end; m0 += STAGED) {
        stage.copy(next + threadIdx.y * PITCH, m0 + STAGED + threadIdx.y);
        copies_sent();
        copies_there_but<1>();
        __syncthreads();
#pragma unroll 1
        for (int m = half; m < STAGED; m += 2) {
            const float *v = now + m * PITCH + p0 * LANES + lane, *w = now + m * PITCH + (CHUNK + q0) * LANES + lane;
            float vs[AT_ONCE], ws[TILE];
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++) vs[p] = v[p * LANES];
#pragma unroll
            for (int q = 0; q < TILE; q++) ws[q] = w[q * LANES];
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++)
#pragma unroll
                for (int q = 0; q < TILE; q++) sum[p][q] = fmaf(vs[p], ws[q], sum[p][q]);
        }
        __syncthreads();
        float *swap = now;
        now = next;
        next = swap;
    }
    part += (long)blockIdx.z * CHUNK * r * d;
    q0 += blockIdx.y * 2 * TILE;
#pragma unroll
    for (int p = 0; p < AT_ONCE; p++)
#pragma unroll
        for (int q = 0; q < TILE; q++) {
            float both = sum[p][q] + __shfl_xor_sync(0xffffffffu, sum[p][q], LANES);
            if (half == 0 && c < d && q0 + q < r) part[((long)(p0 + p) * r + q0 + q) * d + c] = both;
        }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    invariant_sums(const float *x, const float *states, const float *first_states, float *part, int t, int d, int r, int chunks, int count, int from_last) {
    sums(x, states, first_states, part, t, d, r, chunks, count, from_last);
}

// part [4·shares, CHUNK, d] = Σ over chunks and rows t of ȳ_t·u_{t−j}. Grid: 16 channels, shares; 32 × 4 threads, a warp a part.
extern "C" __global__ void __launch_bounds__(128, 4)
    invariant_lags_back(const float *u, const float *gy, float *part, int t, int d, int chunks, int count) {
    int lane = threadIdx.x % LANES, half = threadIdx.x / LANES, c = min((int)blockIdx.x * LANES + lane, d - 1), warp = blockIdx.y * 4 + threadIdx.y;
    float sum[CHUNK];
#pragma unroll
    for (int j = 0; j < CHUNK; j++) sum[j] = 0.0f;
    for (int m = warp * 2 + half; m < count; m += gridDim.y * 8) {
        Rows rows = rows_of(m, t, d, chunks, count, false);
        float x[CHUNK];
#pragma unroll
        for (int p = 0; p < CHUNK; p++) {
            x[p] = rows.get(u, p, p * d + c);
            float g = rows.get(gy, p, p * d + c);
#pragma unroll
            for (int j = 0; j <= p; j++) sum[j] = fmaf(g, x[p - j], sum[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < CHUNK; j++) {
        float both = sum[j] + __shfl_xor_sync(0xffffffffu, sum[j], LANES);
        if (half == 0 && blockIdx.x * LANES + lane < d) part[((long)warp * CHUNK + j) * d + c] = both;
    }
}

// gparams [3, R, d] and D's [d], from the gradients of the tables, of K and of the decays [2, R, d]. A thread a state of a channel.
extern "C" __global__ void invariant_back(const float *params, const float *gin, const float *gout, const float *glags, const float *gdecays, float *gparams,
                                          int d, int n, int complex, int last) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, c = i % d, k = i / d, r = complex ? 2 * n : n;
    if (k >= n) return;
    long state = (long)r * d;
    double zeta = complex ? 2.0 : 1.0;
    Number a = at(params, k, c, d, n, complex), b = at(params + state, k, c, d, n, complex), q = at(params + 2 * state, k, c, d, n, complex);
    Number bq = times(b, q), power = {1.0, 0.0}, before = {0.0, 0.0}, ga = before, gb = before, gq = before;
#pragma unroll 3
    for (int p = 0; p <= CHUNK; p++) {
        // The gradient of Ā^p.
        Number gp = {0.0, 0.0};
        if (p < CHUNK) {
            Number of_in = at(gin + (CHUNK - 1 - p) * state, k, c, d, n, complex), of_lag = {zeta * glags[p * d + c], 0.0};
            gb = plus(gb, plus(back_by(power, of_in), back_by(times(power, q), of_lag)));
            gq = plus(gq, back_by(times(power, b), of_lag));
            gp = plus(back_by(b, of_in), back_by(bq, of_lag));
        }
        if (p > 0) {
            Number row = at(gout + (p - 1) * state, k, c, d, n, complex), of_out = {zeta * row.re, -zeta * row.im};
            gq = plus(gq, back_by(power, of_out));
            gp = plus(gp, back_by(q, of_out));
        }
        if (p == CHUNK) gp = plus(gp, at(gdecays, k, c, d, n, complex));
        if (p == last) gp = plus(gp, at(gdecays + state, k, c, d, n, complex));
        ga = plus(ga, scaled(back_by(before, gp), p));
        before = power, power = times(power, a);
    }
    put(gparams, k, c, d, n, complex, ga);
    put(gparams + state, k, c, d, n, complex, gb);
    put(gparams + 2 * state, k, c, d, n, complex, gq);
    if (k == 0) gparams[3 * state + c] = glags[c];
}
