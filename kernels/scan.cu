// The diagonal recurrence h ← Ā·h + B̄·u, y = C·h + D·u (2·Re for complex A), forward and backward.
//
// Layouts are on the page of src/exec/candle/scan/mod.rs. L lanes of a warp (a power of two, at most 32) hold one channel's
// N states, K = 1 or 2 a lane; a block of 256 threads holds 256/L channels of one stream and walks its rows. Backward goes
// chunk by chunk from the saved states, keeping a chunk's h in local memory. Sums over channels (the gradients of B and C)
// go through shared memory to one partial sum a block; sums over streams are taken afterwards: every sum has a fixed order.

#define CHUNK 64
#define THREADS 256
#define WARPS (THREADS / 32)

// Sizes of one scan.
struct Sizes {
    int t, d, n, r, width, lanes;
    long state, result;
};

template <bool COMPLEX, bool SELECTIVE> __device__ static Sizes sizes(int t, int d, int n, int lanes) {
    int r = COMPLEX ? 2 * n : n;
    long state = (long)r * d;
    return {t, d, n, r, SELECTIVE ? 2 * (d + r) : d, lanes, state, (long)t * d + (1 + (t - 1) / CHUNK) * state};
}

struct Pair {
    float re, im;
};

__device__ static float flush(float x) { return fabsf(x) < 7.8886091e-31f ? 0.0f : x; }
__device__ static Pair flush(Pair x) { return {flush(x.re), flush(x.im)}; }

// a·conj(b).
__device__ static Pair times_conjugate(Pair a, Pair b) {
    return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im};
}

// The sum over the lanes of one channel.
__device__ static float over_states(float v, int lanes) {
    for (int o = lanes >> 1; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// The sum over the channels of one warp.
__device__ static float over_channels(float v, int lanes) {
    for (int o = lanes; o < 32; o <<= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// A number, or a pair, of an [R, d] table.
template <bool COMPLEX> __device__ static Pair get(const float *table, const Sizes &z, int n, int c, bool live) {
    if (!live) return {0.0f, 0.0f};
    return {table[(long)n * z.d + c], COMPLEX ? table[(long)(z.n + n) * z.d + c] : 0.0f};
}

template <bool COMPLEX> __device__ static void put(float *table, const Sizes &z, int n, int c, bool live, Pair v) {
    if (!live) return;
    table[(long)n * z.d + c] = v.re;
    if (COMPLEX) table[(long)(z.n + n) * z.d + c] = v.im;
}

// One state's coefficients; for the selective scan, e, b and c change from row to row.
struct Coefficients {
    Pair a, e, b, c;
};

template <bool COMPLEX, bool SELECTIVE, int K>
__device__ static void fixed(Coefficients *q, const float *params, const Sizes &z, int c, int n0, bool channel) {
    for (int k = 0; k < K; k++) {
        int n = n0 + k * z.lanes;
        bool live = channel && n < z.n;
        q[k].a = q[k].e = get<COMPLEX>(params, z, n, c, live);
        q[k].b = q[k].c = {0.0f, 0.0f};
        if (!SELECTIVE) {
            q[k].b = get<COMPLEX>(params + z.state, z, n, c, live);
            q[k].c = get<COMPLEX>(params + 2 * z.state, z, n, c, live);
        }
    }
}

// e, B and C of a selective row.
template <bool COMPLEX, int K>
__device__ static void of_row(Coefficients *q, const float *row, float dt, const Sizes &z, int n0, bool channel) {
    for (int k = 0; k < K; k++) {
        int n = n0 + k * z.lanes;
        if (!channel || n >= z.n) continue;
        float size = flush(expf(dt * q[k].a.re));
        if (COMPLEX) {
            float sin, cos;
            sincosf(dt * q[k].a.im, &sin, &cos);
            const float *b = row + 2 * z.d + 2 * n, *c = b + z.r;
            q[k].e = {size * cos, size * sin};
            q[k].b = {b[0], b[1]};
            q[k].c = {c[0], c[1]};
        } else {
            const float *b = row + 2 * z.d + n;
            q[k].e = {size, 0.0f};
            q[k].b = {b[0], 0.0f};
            q[k].c = {b[z.r], 0.0f};
        }
    }
}

template <bool COMPLEX> __device__ static Pair step(const Coefficients &q, Pair h, float x) {
    if (!COMPLEX) return {flush(q.e.re * h.re + q.b.re * x), 0.0f};
    return flush(Pair{q.e.re * h.re - q.e.im * h.im + q.b.re * x, q.e.re * h.im + q.e.im * h.re + q.b.im * x});
}

template <bool COMPLEX, bool SELECTIVE, int K>
__device__ static void forward(const float *rows, const float *params, const float *h0, float *out, int t, int d, int n,
                               int lanes) {
    Sizes z = sizes<COMPLEX, SELECTIVE>(t, d, n, lanes);
    int c = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes, n0 = threadIdx.x % lanes;
    bool channel = c < d;
    long s = blockIdx.y;
    rows += s * t * z.width;
    out += s * z.result;
    float *states = out + (long)t * d;
    Coefficients q[K];
    Pair h[K];
    fixed<COMPLEX, SELECTIVE, K>(q, params, z, c, n0, channel);
    float skip = channel ? params[(SELECTIVE ? 1 : 3) * z.state + c] : 0.0f;
    for (int k = 0; k < K; k++) h[k] = get<COMPLEX>(h0 + s * z.state, z, n0 + k * lanes, c, channel && n0 + k * lanes < n);
#pragma unroll 4
    for (int i = 0; i < t; i++) {
        if (i % CHUNK == 0 && i > 0)
            for (int k = 0; k < K; k++) {
                int m = n0 + k * lanes;
                put<COMPLEX>(states + i / CHUNK * z.state, z, m, c, channel && m < n, h[k]);
            }
        const float *row = rows + (long)i * z.width;
        float u = channel ? row[c] : 0.0f, x = u, y = 0.0f;
        if (SELECTIVE) {
            float dt = channel ? row[d + c] : 0.0f;
            of_row<COMPLEX, K>(q, row, dt, z, n0, channel);
            x = dt * u;
        }
        for (int k = 0; k < K; k++) {
            h[k] = step<COMPLEX>(q[k], h[k], x);
            y += COMPLEX ? 2.0f * (q[k].c.re * h[k].re - q[k].c.im * h[k].im) : q[k].c.re * h[k].re;
        }
        y = over_states(y, lanes);
        if (n0 == 0 && channel) out[(long)i * d + c] = y + skip * u;
    }
    for (int k = 0; k < K; k++) {
        int m = n0 + k * lanes;
        put<COMPLEX>(states, z, m, c, channel && m < n, h[k]);
    }
}

// Outputs: grows [S, T, width] (its columns of B and C are left to `scan_mix`), mix [blocks, S, T, 2R] (selective),
// gparams [S, params], gh0 [S, R, d].
template <bool COMPLEX, bool SELECTIVE, int K>
__device__ static void backward(const float *rows, const float *params, const float *h0, const float *flat, const float *grad,
                                float *grows, float *mix, float *gparams, float *gh0, int t, int d, int n, int lanes) {
    __shared__ float part[2][WARPS][4 * K * 32];
    Sizes z = sizes<COMPLEX, SELECTIVE>(t, d, n, lanes);
    int c = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes, n0 = threadIdx.x % lanes;
    bool channel = c < d;
    long s = blockIdx.y;
    long params_len = (SELECTIVE ? 1 : 3) * z.state + d;
    rows += s * t * z.width;
    grows += s * t * z.width;
    h0 += s * z.state;
    gh0 += s * z.state;
    gparams += s * params_len;
    const float *gy_rows = grad + s * z.result, *saved = flat + s * z.result + (long)t * d + z.state;
    if (SELECTIVE) mix += ((long)blockIdx.x * gridDim.y + s) * t * 2 * z.r;
    const float scale = COMPLEX ? 2.0f : 1.0f;
    const int values = COMPLEX ? 4 : 2, warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    Coefficients q[K];
    Pair gh[K], ga[K], gb[K], gc[K], h[K][CHUNK + 1];
    float skip = channel ? params[params_len - d + c] : 0.0f, gskip = 0.0f;
    fixed<COMPLEX, SELECTIVE, K>(q, params, z, c, n0, channel);
    for (int k = 0; k < K; k++) {
        gh[k] = get<COMPLEX>(gy_rows + (long)t * d, z, n0 + k * lanes, c, channel && n0 + k * lanes < n);
        ga[k] = gb[k] = gc[k] = {0.0f, 0.0f};
    }
    for (int chunk = (t - 1) / CHUNK; chunk >= 0; chunk--) {
        int from = chunk * CHUNK, len = min(CHUNK, t - from);
        const float *start = chunk == 0 ? h0 : saved + (chunk - 1) * z.state;
        for (int k = 0; k < K; k++) h[k][0] = get<COMPLEX>(start, z, n0 + k * lanes, c, channel && n0 + k * lanes < n);
#pragma unroll 4
        for (int i = 0; i < len; i++) {
            const float *row = rows + (long)(from + i) * z.width;
            float x = channel ? row[c] : 0.0f;
            if (SELECTIVE) {
                float dt = channel ? row[d + c] : 0.0f;
                of_row<COMPLEX, K>(q, row, dt, z, n0, channel);
                x *= dt;
            }
            for (int k = 0; k < K; k++) h[k][i + 1] = step<COMPLEX>(q[k], h[k][i], x);
        }
#pragma unroll 2
        for (int i = len - 1; i >= 0; i--) {
            const float *row = rows + (long)(from + i) * z.width;
            float u = channel ? row[c] : 0.0f, dt = 1.0f, x = u;
            float gy_plain = channel ? gy_rows[(long)(from + i) * d + c] : 0.0f, gy = scale * gy_plain;
            if (SELECTIVE) {
                dt = channel ? row[d + c] : 0.0f;
                of_row<COMPLEX, K>(q, row, dt, z, n0, channel);
                x = dt * u;
            }
            float gx = 0.0f, gdt = 0.0f;
            for (int k = 0; k < K; k++) {
                Pair before = h[k][i], after = h[k][i + 1], g, ge;
                Pair step_b, step_c;
                if (COMPLEX) {
                    g = {gh[k].re + q[k].c.re * gy, gh[k].im - q[k].c.im * gy};
                    gx += g.re * q[k].b.re + g.im * q[k].b.im;
                    step_b = {g.re * x, g.im * x};
                    step_c = {gy * after.re, -gy * after.im};
                    ge = times_conjugate(g, before);
                    gh[k] = flush(times_conjugate(g, q[k].e));
                    if (SELECTIVE) {
                        Pair exponent = times_conjugate(ge, q[k].e);
                        gdt += exponent.re * q[k].a.re + exponent.im * q[k].a.im;
                        ge = {exponent.re * dt, exponent.im * dt};
                    }
                } else {
                    g = {gh[k].re + q[k].c.re * gy, 0.0f};
                    gx += g.re * q[k].b.re;
                    step_b = {g.re * x, 0.0f};
                    step_c = {gy * after.re, 0.0f};
                    ge = {g.re * before.re, 0.0f};
                    gh[k] = {flush(g.re * q[k].e.re), 0.0f};
                    if (SELECTIVE) {
                        float exponent = ge.re * q[k].e.re;
                        gdt += exponent * q[k].a.re;
                        ge = {exponent * dt, 0.0f};
                    }
                }
                ga[k].re += ge.re;
                ga[k].im += ge.im;
                if (SELECTIVE) {
                    float v[4] = {step_b.re, COMPLEX ? step_b.im : step_c.re, step_c.re, step_c.im};
                    for (int j = 0; j < values; j++) {
                        float sum = over_channels(v[j], lanes);
                        if (lane < lanes) part[i & 1][warp][(k * 4 + j) * 32 + lane] = sum;
                    }
                } else {
                    gb[k].re += step_b.re;
                    gb[k].im += step_b.im;
                    gc[k].re += step_c.re;
                    gc[k].im += step_c.im;
                }
            }
            gx = over_states(gx, lanes);
            gskip += u * gy_plain;
            float *grow = grows + (long)(from + i) * z.width;
            if (SELECTIVE) {
                gdt = over_states(gdt, lanes);
                if (n0 == 0 && channel) {
                    grow[c] = skip * gy_plain + gx * dt;
                    grow[d + c] = gdt + gx * u;
                }
                __syncthreads();
                for (int j = threadIdx.x; j < values * K * lanes; j += THREADS) {
                    int m = j % lanes, k = j / lanes % K, v = j / lanes / K;
                    int state = m + k * lanes;
                    if (state >= n) continue;
                    float sum = 0.0f;
                    for (int w = 0; w < WARPS; w++) sum += part[i & 1][w][(k * 4 + v) * 32 + m];
                    // Real: B then C; complex: pairs of B, then pairs of C.
                    int at = COMPLEX ? v / 2 * z.r + 2 * state + v % 2 : v * z.r + state;
                    mix[(long)(from + i) * 2 * z.r + at] = sum;
                }
            } else if (n0 == 0 && channel) {
                grow[c] = skip * gy_plain + gx;
            }
        }
    }
    for (int k = 0; k < K; k++) {
        int m = n0 + k * lanes;
        bool live = channel && m < n;
        put<COMPLEX>(gh0, z, m, c, live, gh[k]);
        put<COMPLEX>(gparams, z, m, c, live, ga[k]);
        if (!SELECTIVE) {
            put<COMPLEX>(gparams + z.state, z, m, c, live, gb[k]);
            put<COMPLEX>(gparams + 2 * z.state, z, m, c, live, gc[k]);
        }
    }
    if (n0 == 0 && channel) gparams[params_len - d + c] = gskip;
}

// The columns of B and C of grows: the blocks' partial sums added in order.
extern "C" __global__ void scan_mix(const float *mix, float *grows, int count, int d, int r, int blocks) {
    int width = 2 * (d + r);
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < count; i += (long)gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (int b = 0; b < blocks; b++) sum += mix[(long)b * count + i];
        grows[i / (2 * r) * width + 2 * d + i % (2 * r)] = sum;
    }
}

#define SCAN(NAME, COMPLEX, SELECTIVE, K)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) scan_forward_##NAME(                                                  \
        const float *rows, const float *params, const float *h0, float *out, int t, int d, int n, int lanes) {                  \
        forward<COMPLEX, SELECTIVE, K>(rows, params, h0, out, t, d, n, lanes);                                                  \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) scan_backward_##NAME(                                                 \
        const float *rows, const float *params, const float *h0, const float *flat, const float *grad, float *grows,            \
        float *mix, float *gparams, float *gh0, int t, int d, int n, int lanes) {                                               \
        backward<COMPLEX, SELECTIVE, K>(rows, params, h0, flat, grad, grows, mix, gparams, gh0, t, d, n, lanes);                \
    }

SCAN(real_invariant_1, false, false, 1)
SCAN(real_invariant_2, false, false, 2)
SCAN(real_selective_1, false, true, 1)
SCAN(real_selective_2, false, true, 2)
SCAN(complex_invariant_1, true, false, 1)
SCAN(complex_invariant_2, true, false, 2)
SCAN(complex_selective_1, true, true, 1)
SCAN(complex_selective_2, true, true, 2)
