// The selective recurrence h ← Ā·h + B̄·u, y = C·h + D·u (2·Re for complex A), split over length. (The time-invariant one is invariant.cu.)
//
// Layouts are on the page of src/exec/candle/scan/mod.rs; the launches, with the sizes that they take, are in
// src/exec/candle/cuda/scan.rs. A stream of T rows is cut into G segments of `seg` rows, which run side by side:
//
//     scan_ends    each segment from h = 0: its last state, and ΣΔ       scan_forward.cu
//     scan_carry   over the segments, one after the other: the state in which each begins
//     scan_rows    each segment from there: y, the final state, the state before every CHUNK-th row
//     back_ends, scan_carry and back_rows: the same from the last row to the first, for the gradients      scan_backward.cu
//
// So a short batch of long sounds fills the chip; the price is that every decay is computed twice. With one segment there are no
// ends; and where streams and channels nearly fill the chip by themselves,
//
//     scan_relay   goes through all rows in one pass, by warps that take turns          scan_relay.cu
//
// In the others a channel is a lane's, or that of a few where it has many states: its states are registers, its rows are read 32
// neighbouring channels at a time, and
// B and C, which all channels share, are staged in shared memory. Every sum has a fixed order.
//
// The exponential is ex2.approx of Δ·A·log₂e (error 2⁻²²); a rotation is counted in turns. States below 2⁻¹⁰⁰ are 0 where they are
// handed out. Places within a stream are counted in 31 bits.
#pragma once
#include <cuda_bf16.h>

#include "device.cuh"

#define LOG2E 1.44269504088896340736f
#define TURN 0.15915493667125701904f
#define TURN_REST 6.4206383e-9f
// Rows between two saved states.
#define CHUNK 16

typedef __nv_bfloat16 bf16;

struct Pair {
    float re, im;
};

struct Sizes {
    int t, d, n, r, width, seg, segs;
    long state;
};

template <bool COMPLEX> __device__ static Sizes sizes(int t, int d, int n, int seg, int segs) {
    int r = COMPLEX ? 2 * n : n;
    return {t, d, n, r, 2 * (d + r), seg, segs, (long)r * d};
}

__device__ static float number(float x) { return x; }
__device__ static float number(bf16 x) { return __bfloat162float(x); }
__device__ static void set(float *to, float x) { *to = x; }
__device__ static void set(bf16 *to, float x) { *to = __float2bfloat16(x); }

__device__ static float flush(float x) { return fabsf(x) < 7.8886091e-31f ? 0.0f : x; }

// A as `decay` takes it: A·log₂e, and A/2π with what rounding takes from it, for many turns leave few bits to their fraction.
struct Exponent {
    float size, turns, rest;
};

// 2^(Δ·size), turned by Δ·turns; `more` is what a sum of many Δ has lost to rounding.
template <bool COMPLEX> __device__ static Pair decay(Exponent a, float dt, float more = 0.0f) {
    float size = exp2_of(dt * a.size);
    if (!COMPLEX) return {size, 0.0f};
    // Rounded by itself, never part of a fused multiply-add, or `rest` would count twice.
    float turns = __fmul_rn(dt, a.turns), rest = fmaf(more, a.turns, fmaf(dt, a.rest, fmaf(dt, a.turns, -turns))), sin, cos;
    sincospif(2.0f * (turns - rintf(turns) + rest), &sin, &cos);
    return {size * cos, size * sin};
}

// e·h + b·x.
template <bool COMPLEX> __device__ static Pair step(Pair e, Pair h, Pair b, float x) {
    if (!COMPLEX) return {fmaf(e.re, h.re, b.re * x), 0.0f};
    return {fmaf(e.re, h.re, fmaf(-e.im, h.im, b.re * x)), fmaf(e.re, h.im, fmaf(e.im, h.re, b.im * x))};
}

// conj(e)·g.
template <bool COMPLEX> __device__ static Pair step_back(Pair e, Pair g) {
    if (!COMPLEX) return {e.re * g.re, 0.0f};
    return {fmaf(e.re, g.re, e.im * g.im), fmaf(e.re, g.im, -(e.im * g.re))};
}

// The n-th number, or pair, of an [R, d] table; zero where there is none.
template <bool COMPLEX> __device__ static Pair get(const float *table, const Sizes &z, int n, int c) {
    if (n >= z.n || c >= z.d) return {0.0f, 0.0f};
    return {table[n * z.d + c], COMPLEX ? table[(z.n + n) * z.d + c] : 0.0f};
}

template <bool COMPLEX> __device__ static void put(float *table, const Sizes &z, int n, int c, Pair v) {
    if (n >= z.n || c >= z.d) return;
    table[n * z.d + c] = v.re;
    if (COMPLEX) table[(z.n + n) * z.d + c] = v.im;
}

template <bool COMPLEX> __device__ static Exponent exponent(Pair a) {
    float turns = __fmul_rn(a.im, TURN);
    return {a.re * LOG2E, turns, fmaf(a.im, TURN, -turns) + a.im * TURN_REST};
}

__device__ static void four(float (&to)[4], const float *from) {
    float4 v = *(const float4 *)from;
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ static void four(float (&to)[4], const bf16 *from) {
    uint2 v = *(const uint2 *)from;
    to[0] = __uint_as_float(v.x << 16), to[1] = __uint_as_float(v.x & 0xffff0000u);
    to[2] = __uint_as_float(v.y << 16), to[3] = __uint_as_float(v.y & 0xffff0000u);
}
__device__ static void two(float (&to)[2], const float *from) {
    float2 v = *(const float2 *)from;
    to[0] = v.x, to[1] = v.y;
}
__device__ static void two(float (&to)[2], const bf16 *from) {
    unsigned v = *(const unsigned *)from;
    to[0] = __uint_as_float(v << 16), to[1] = __uint_as_float(v & 0xffff0000u);
}
__device__ static void set_two(float *to, float a, float b) { *(float2 *)to = {a, b}; }
__device__ static void set_two(bf16 *to, float a, float b) { set(to, a), set(to + 1, b); }
// Lanes without the bit S keep the first, the others the second, each with its partner's share of it.
template <int S> __device__ static float halves(float first, float second) {
    bool up = threadIdx.x & S;
    float keep = up ? second : first, send = up ? first : second;
    return keep + __shfl_xor_sync(0xffffffffu, send, S);
}

// Walks the rows of a segment, K states a lane and CC channels a lane apart by 32/lanes.
//
// ENDS: from h = 0; writes the last state, and the sum of Δ (complex: and its rounding).
// ROWS: from `starts`; writes y and states.
// BACK: from g = 0 and the last row to the first, g ← conj(ē)·(g + conj(C)·ȳ); writes g before the first row.
enum Pass { ENDS, ROWS, BACK };
#define STAGED 16
#define AHEAD 4

template <typename In, bool COMPLEX, int K, int CC, Pass PASS> struct Walk {
    static const int NUMBERS = COMPLEX ? 2 : 1, PARTS = PASS == ROWS ? 2 : 1;
    Sizes z;
    const In *rows, *gy;
    int lanes, per, n0, from, count, c[CC], wide;
    // Where the next AHEAD rows lie, from `rows` (or `gy`) and, Δ, from `rows`.
    int at[AHEAD], dt_at[AHEAD];
    Exponent a[CC][K];
    Pair h[CC][K];
    // ΣΔ and, by which it is too great, for a turn's fraction needs it (Kahan 1965).
    float skip[CC], sum[CC], over[CC];

    // The i-th row that is met.
    __device__ int row(int i) const { return PASS == BACK ? from + count - 1 - i : from + i; }

    // Sends for B, C or both of the rows i .. i + STAGED.
    __device__ void stage(In *tile, int i) const {
        // How many numbers a copy takes; an odd number of them in a row (bf16) is not copied ahead.
        const int MOST = 4 / sizeof(In);
        int numbers = STAGED * PARTS * wide, bits = 31 - __clz(wide);
        bool even = MOST == 1 || z.r % MOST == 0;
        for (int k = threadIdx.x * MOST; k < numbers; k += blockDim.x * MOST) {
            int v = k & (wide - 1), part = (k >> bits) % PARTS, p = (k >> bits) / PARTS;
            const In *source = rows + row(i + p) * z.width + 2 * z.d + (PASS == BACK ? 1 : part) * z.r + v;
            bool there = i + p < count;
            if (even && there && v < z.r)
                copy_ahead(tile + k, source);
            else
                for (int m = 0; m < MOST; m++) tile[k + m] = there && v + m < z.r ? source[m] : In(0.0f);
        }
    }

    // Asks for the lines of a warp's rows i .. i + STAGED before they are fetched: a lane a line.
    __device__ void ask(int i) const {
        if (i >= count) return;
        int lane = threadIdx.x % 32, at = row(min(i + lane % STAGED, count - 1)), channel = min(c[0] - lane % per, z.d - 1);
        const In *u = PASS == BACK ? gy + at * z.d : rows + at * z.width, *line = (lane < STAGED ? u : rows + at * z.width + z.d) + channel;
        ask_for(line);
    }

    // u (or ȳ) and Δ of the rows i .. i + AHEAD; zeros beyond the last.
    __device__ void fetch(In (&x)[AHEAD][CC], In (&dt)[AHEAD][CC], int i) {
        const int PER = CC == 1 ? 0 : 32, BACKWARDS = PASS == BACK ? -1 : 1;
        const In *first = PASS == BACK ? gy : rows, *second = rows + z.d;
        int left = count - i;
#pragma unroll
        for (int p = 0; p < AHEAD; p++) {
            bool there = p < left;
#pragma unroll
            for (int j = 0; j < CC; j++) {
                x[p][j] = there ? first[at[p] + j * PER] : In(0.0f);
                dt[p][j] = there ? second[(PASS == BACK ? dt_at[p] : at[p]) + j * PER] : In(0.0f);
            }
            at[p] += BACKWARDS * AHEAD * (PASS == BACK ? z.d : z.width);
            if (PASS == BACK) dt_at[p] -= AHEAD * z.width;
        }
    }

    // One row of the CC channels; their outputs.
    __device__ void one(const In *tile, const float (&u)[CC], const float (&dt)[CC], float (&y)[CC]) {
        float x[CC];
#pragma unroll
        for (int j = 0; j < CC; j++) {
            y[j] = 0.0f;
            x[j] = PASS == BACK ? NUMBERS * u[j] : dt[j] * u[j];
            if (PASS != ROWS) {
                float more = COMPLEX ? dt[j] - over[j] : dt[j], all = sum[j] + more;
                if (COMPLEX) over[j] = (all - sum[j]) - more;
                sum[j] = all;
            }
        }
#pragma unroll
        for (int k0 = 0; k0 < K; k0 += 4 / NUMBERS) {
            float f[4], s[4];
            four(f, tile + (n0 + k0) * NUMBERS);
            if (PASS == ROWS) four(s, tile + wide + (n0 + k0) * NUMBERS);
#pragma unroll
            for (int i = 0; i < 4 / NUMBERS; i++) {
                int k = k0 + i;
                Pair first = COMPLEX ? Pair{f[2 * i], f[2 * i + 1]} : Pair{f[i], 0.0f}, second;
                if (PASS == ROWS) second = COMPLEX ? Pair{s[2 * i], s[2 * i + 1]} : Pair{s[i], 0.0f};
#pragma unroll
                for (int j = 0; j < CC; j++) {
                    Pair e = decay<COMPLEX>(a[j][k], dt[j]);
                    if (PASS == BACK) {
                        Pair g = {fmaf(first.re, x[j], h[j][k].re), fmaf(-first.im, x[j], h[j][k].im)};
                        h[j][k] = step_back<COMPLEX>(e, g);
                        continue;
                    }
                    h[j][k] = step<COMPLEX>(e, h[j][k], first, x[j]);
                    if (PASS == ROWS) {
                        y[j] = fmaf(second.re, h[j][k].re, y[j]);
                        if (COMPLEX) y[j] = fmaf(-second.im, h[j][k].im, y[j]);
                    }
                }
            }
        }
    }

    __device__ void save(float *table) const {
#pragma unroll
        for (int j = 0; j < CC; j++) {
            if (c[j] >= z.d) continue;
            int place = n0 * z.d + c[j];
#pragma unroll
            for (int k = 0; k < K; k++, place += z.d) {
                if (n0 + k >= z.n) break;
                table[place] = flush(h[j][k].re);
                if (COMPLEX) table[place + z.n * z.d] = flush(h[j][k].im);
            }
        }
    }

    // Where the lane's channels and rows are, its states and coefficients.
    __device__ void begin(const float *params, const float *start, int lanes_) {
        lanes = lanes_;
        per = CC == 1 ? 32 / lanes : 32;
        wide = K * lanes * NUMBERS;
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        n0 = lane / per * K;
#pragma unroll
        for (int j = 0; j < CC; j++) {
            c[j] = (blockIdx.x * (blockDim.x / 32) + warp) * per * CC + j * per + lane % per;
            sum[j] = over[j] = 0.0f;
            skip[j] = PASS == ROWS && c[j] < z.d ? params[z.state + c[j]] : 0.0f;
#pragma unroll
            for (int k = 0; k < K; k++) {
                int n = n0 + k;
                h[j][k] = PASS == ROWS ? get<COMPLEX>(start, z, n, c[j]) : Pair{0.0f, 0.0f};
                a[j][k] = exponent<COMPLEX>(get<COMPLEX>(params, z, n, c[j]));
            }
        }
        // A lane without a channel reads along with the last one that has; nothing of it is kept. Two channels a lane are both there or not.
        int channel = min(c[0], z.d - 1 - (CC == 1 ? 0 : 32));
#pragma unroll
        for (int p = 0; p < AHEAD; p++) {
            at[p] = row(p) * (PASS == BACK ? z.d : z.width) + channel;
            dt_at[p] = row(p) * z.width + channel;
        }
    }

    __device__ void run(const In *all, const In *grad, const float *params, const float *starts, float *ends, float *sums, In *y,
                        float *states, long y_stride, long states_stride, long grad_stride, int lanes_) {
        DYNAMIC_SHARED;
        int g = blockIdx.y + (PASS == BACK ? 1 : 0);
        long s = blockIdx.z, place = s * z.segs + g;
        from = g * z.seg;
        count = min(z.t - from, z.seg);
        rows = all + s * z.t * z.width;
        gy = grad + s * grad_stride;
        begin(params, starts + place * z.state, lanes_);
        y += s * y_stride + (long)from * z.d + c[0];
        states += s * states_stride;
        float x[AHEAD][CC], dt[AHEAD][CC];
        In next_x[AHEAD][CC], next_dt[AHEAD][CC];
        fetch(next_x, next_dt, 0);
        In *tile = (In *)shared, *other = tile + STAGED * PARTS * wide;
        stage(tile, 0);
        copies_sent();
        for (int i = 0; i < count; i += STAGED) {
            // Where outputs and states are written too, it costs more than it gives in f32, and nothing in bf16.
            if (PASS != ROWS) ask(i + STAGED);
            if (i + STAGED < count) stage(other, i + STAGED);
            copies_sent();
            copies_there_but<1>();
            __syncthreads();
            if (PASS == ROWS && from + i > 0 && (from + i) % CHUNK == 0) save(states + (from + i) / CHUNK * z.state);
#pragma unroll 1
            for (int p0 = 0; p0 < STAGED; p0 += AHEAD) {
#pragma unroll
                for (int p = 0; p < AHEAD; p++)
#pragma unroll
                    for (int j = 0; j < CC; j++) x[p][j] = number(next_x[p][j]), dt[p][j] = number(next_dt[p][j]);
                fetch(next_x, next_dt, i + p0 + AHEAD);
                int left = count - i - p0;
#pragma unroll
                for (int p = 0; p < AHEAD; p++) {
                    float out[CC];
                    // Beyond the last row Δ is 0, and a decay 1.
                    one(tile + (p0 + p) * PARTS * wide, x[p], dt[p], out);
                    if (PASS == ROWS) {
#pragma unroll
                        for (int j = 0; j < CC; j++) {
                            if (CC == 1)
                                for (int o = per; o < 32; o <<= 1) out[j] += __shfl_xor_sync(0xffffffffu, out[j], o);
                            if (p < left && n0 == 0 && c[j] < z.d) set(y + j * 32, fmaf(skip[j], x[p][j], NUMBERS * out[j]));
                        }
                        y += z.d;
                    }
                }
            }
            __syncthreads();
            In *swap = tile;
            tile = other;
            other = swap;
        }
        if (PASS == ROWS) {
            if (g == z.segs - 1) save(states);
            return;
        }
        save(ends + place * z.state);
        if (n0 == 0)
            for (int j = 0; j < CC; j++)
                if (c[j] < z.d) {
                    sums[place * NUMBERS * z.d + c[j]] = sum[j];
                    if (COMPLEX) sums[(place * NUMBERS + 1) * z.d + c[j]] = -over[j];
                }
    }
};
