// Backward of the scan: gradients of rows, parameters and initial state. See scan.cuh.
//
//     g_t = conj(C_t)·ȳ_t (·2 for complex A) + conj(Ā_{t+1})·g_{t+1},   g after the last row from the final state's gradient
//     x̄ = Re(conj(B)·g);  B̄' = g·x;  C̄' = ȳ·conj(h);  Ā' = g·conj(h_{t−1});   u, Δ, A, D by the chain rule
//
// A lane is a channel. A segment's chunks go from the last to the first; in a chunk, state by state: h of all its rows again from
// the saved state, kept in registers with the decays, then g back over them. What a lane carries from chunk to chunk (g, and
// the parameters' gradients so far) is its own column of shared memory. The gradients of B and C are sums over channels: 16 rows of
// both are 32 numbers a lane, which five rounds of exchanges add over the 32 lanes of a warp, one number a lane. Grid: channels, segments,
// streams; any multiple of 32 threads.
#include "scan.cuh"

#define PITCH (CHUNK + 4)

// The sum over lanes of v[i] where lane & 15 is i: the numbers halve with each exchange.
template <int S = 8> __device__ static float over_lanes(float (&v)[16]) {
#pragma unroll
    for (int i = 0; i < S; i++) v[i] = halves<S>(v[i], v[i + S]);
    if constexpr (S > 1) over_lanes<S / 2>(v);
    return v[0];
}

// Asks for the lines of a warp's chunk of rows before they are read: a lane a line.
template <typename In> __device__ static void ask(const Sizes &z, const In *rows, const In *gy, int base, int c) {
    int lane = threadIdx.x % 32, i = base + lane % CHUNK;
    const In *row = rows + i * z.width, *other = gy + i * z.d + c;
    ask_for(lane < 16 ? row + c : row + z.d + c);
    ask_for(lane < 16 ? other : row + 2 * z.d);
}

// grows [S, T, width] (its columns of B and C are left to scan_mix), mix [channel blocks, S, T, 2R],
// gparams [S, G, params], gh0 [S, R, d].
template <typename In, bool COMPLEX>
__device__ static void back(const In *all, const float *params, const float *h0, const float *states, const In *grad,
                            const float *starts, In *grows, float *mix, float *gparams, float *gh0, Sizes z, long states_stride,
                            long grad_stride) {
    const int NUMBERS = COMPLEX ? 2 : 1;
    DYNAMIC_SHARED;
    int threads = blockDim.x, tid = threadIdx.x, c = blockIdx.x * threads + tid, g = blockIdx.y, lane = tid % 32, warp = tid / 32;
    int from = g * z.seg, to = min(z.t, from + z.seg), first = from / CHUNK, warps = threads / 32;
    long s = blockIdx.z, params_len = z.state + z.d, place = s * z.segs + g;
    const In *rows = counted_from(all + s * z.t * z.width), *gy_rows = counted_from(grad + s * grad_stride);
    grows = counted_from(grows + s * z.t * z.width);
    h0 += s * z.state;
    states += s * states_stride;
    gparams += place * params_len;
    bool channel = c < z.d;
    int near = min(c, z.d - 1);
    // Columns of shared memory, a lane's own: g, Ā' and the states before the chunk, [n][threads] each, u of its rows; then what lanes
    // share: the chunk's B and C; sums by warp, [n][warp][32] with one number between.
    int columns = z.r * threads, part_pitch = threads + 1;
    float *own = (float *)shared + tid, *own_u = own + 3 * columns, *tile = (float *)shared + 3 * columns + CHUNK * threads, *part = tile + 2 * z.r * PITCH;
    for (int n = 0; n < z.n; n++)
        for (int i = 0; i < NUMBERS; i++) {
            int at = (i * z.n + n) * threads;
            own[at] = channel ? starts[place * z.state + (long)(i * z.n + n) * z.d + c] : 0.0f;
            own[columns + at] = 0.0f;
        }
    auto states_before = [&](int chunk) { return (chunk == 0 ? h0 : states + chunk * z.state) + near; };
    for (int m = 0; m < z.r; m++) copy_ahead(own + 2 * columns + m * threads, states_before((to - 1) / CHUNK) + m * z.d);
    copies_sent();
    float skip = channel ? params[params_len - z.d + c] : 0.0f, gskip = 0.0f;
    mix += (blockIdx.x * (long)gridDim.z + s) * z.t * 2 * z.r;

    for (int chunk = (to - 1) / CHUNK; chunk >= first; chunk--) {
        int base = chunk * CHUNK, left = to - base;
        __syncthreads();
        for (int i = warp; i < CHUNK; i += warps)
#pragma unroll 1
            for (int v = lane; v < 2 * z.r; v += 32) tile[v * PITCH + i] = i < left ? number(rows[(base + i) * z.width + 2 * z.d + v]) : 0.0f;
        if (chunk > first) ask(z, rows, gy_rows, base - CHUNK, min(c - lane, z.d - 1));
        float x[CHUNK], dt[CHUNK], gy[CHUNK], gx[CHUNK], gdt[CHUNK];
        // Beyond the last row, and the last channel, that one is read again, and counts nothing.
        unsigned row_at = base * z.width + near, y_at = base * z.d + near;
        int mine_left = channel ? left : 0, last = left - 1;
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            unsigned row = min(i, last), at = row_at + row * z.width;
            bool there = i < mine_left;
            float u = number(rows[at]), gy_plain = number(gy_rows[y_at + row * z.d]), step = number(rows[at + z.d]);
            dt[i] = there ? step : 0.0f;
            gy_plain = there ? gy_plain : 0.0f;
            gskip = fmaf(u, gy_plain, gskip);
            own_u[i * threads] = u;
            gy[i] = NUMBERS * gy_plain;
            x[i] = dt[i] * u;
            gx[i] = gdt[i] = 0.0f;
        }
        __syncthreads();
        copies_there_but<0>();
        const float *earlier = chunk > first ? states_before(chunk - 1) : (const float *)0, *of_a = params + near;
        const float *bs = tile, *qs = tile + z.r * PITCH;
        float *mine = own, *mine_h = own + 2 * columns, *sums = part + tid;
        int im = z.n * threads, im_at = z.n * z.d;
        Pair next_a = {of_a[0], COMPLEX ? of_a[im_at] : 0.0f};
#pragma unroll 1
        for (int n = 0; n < z.n; n++) {
            Pair h = {mine_h[0], COMPLEX ? mine_h[im] : 0.0f}, hs[CHUNK], es[CHUNK], a = next_a;
            // The states before the chunk that is next come while this one is gone through: these are read by now.
            made(h.re), made(h.im);
            if (earlier) {
                copy_ahead(mine_h, earlier);
                if (COMPLEX) copy_ahead(mine_h + im, earlier + im_at);
                earlier += z.d;
            }
            if (n + 1 < z.n) {
                of_a += z.d;
                next_a = {of_a[0], COMPLEX ? of_a[im_at] : 0.0f};
            }
            Exponent by = exponent<COMPLEX>(a);
            float b4[4], q4[4], b4_im[4], q4_im[4];
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                if (i % 4 == 0) {
                    four(b4, bs + i);
                    if (COMPLEX) four(b4_im, bs + PITCH + i);
                }
                es[i] = decay<COMPLEX>(by, dt[i]);
                hs[i] = h;
                h = step<COMPLEX>(es[i], h, {b4[i % 4], COMPLEX ? b4_im[i % 4] : 0.0f}, x[i]);
            }
            Pair gh = {mine[0], COMPLEX ? mine[im] : 0.0f}, ga = {0.0f, 0.0f}, after = h;
            float sum[16], sum_im[16];
#pragma unroll
            for (int i = CHUNK - 1; i >= 0; i--) {
                if (i % 4 == 3) {
                    four(b4, bs + i - 3), four(q4, qs + i - 3);
                    if (COMPLEX) four(b4_im, bs + PITCH + i - 3), four(q4_im, qs + PITCH + i - 3);
                }
                Pair b = {b4[i % 4], COMPLEX ? b4_im[i % 4] : 0.0f}, q = {q4[i % 4], COMPLEX ? q4_im[i % 4] : 0.0f};
                Pair to_c = {gy[i] * after.re, -gy[i] * after.im};
                Pair gr = {fmaf(q.re, gy[i], gh.re), COMPLEX ? fmaf(-q.im, gy[i], gh.im) : 0.0f};
                gx[i] = fmaf(gr.re, b.re, gx[i]);
                if (COMPLEX) gx[i] = fmaf(gr.im, b.im, gx[i]);
                sum[i] = halves<16>(gr.re * x[i], to_c.re);
                if (COMPLEX) sum_im[i] = halves<16>(gr.im * x[i], to_c.im);
                // ē·g·conj(h before): the gradient of the exponent.
                gh = step_back<COMPLEX>(es[i], gr);
                Pair at = {gh.re * hs[i].re, 0.0f};
                if (COMPLEX) at = {fmaf(gh.re, hs[i].re, gh.im * hs[i].im), fmaf(gh.im, hs[i].re, -(gh.re * hs[i].im))};
                gdt[i] = fmaf(at.re, a.re, gdt[i]);
                if (COMPLEX) gdt[i] = fmaf(at.im, a.im, gdt[i]);
                ga.re = fmaf(at.re, dt[i], ga.re);
                if (COMPLEX) ga.im = fmaf(at.im, dt[i], ga.im);
                after = hs[i];
            }
            mine[0] = gh.re;
            mine[columns] += ga.re;
            if (COMPLEX) mine[im] = gh.im, mine[columns + im] += ga.im;
            // [n][warp][B 16, C 16], and the imaginary parts after all real ones.
            sums[0] = over_lanes(sum);
            if (COMPLEX) sums[z.n * part_pitch] = over_lanes(sum_im);
            mine += threads, mine_h += threads, sums += part_pitch, bs += NUMBERS * PITCH, qs += NUMBERS * PITCH;
        }
        copies_sent();
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            unsigned at = row_at + (unsigned)i * z.width;
            float gu = fmaf(gx[i], dt[i], gy[i] * (skip / NUMBERS)), gd = fmaf(gx[i], own_u[i * threads], gdt[i]);
            if (i < mine_left) set(grows + at, gu);
            if (i < mine_left) set(grows + (at + z.d), gd);
        }
        __syncthreads();
        for (int i = warp; i < CHUNK && i < left; i += warps)
#pragma unroll 1
            for (int v = lane; v < 2 * z.r; v += 32) {
                int is_c = v >= z.r, m = v - is_c * z.r, at = COMPLEX ? m % 2 * z.n + m / 2 : m;
                const float *of_warps = part + at * part_pitch + is_c * CHUNK + i;
                float sum = 0.0f;
                for (int w = 0; w < warps; w++) sum += of_warps[w * 32];
                mix[(base + i) * 2 * z.r + v] = sum;
            }
    }
    if (!channel) return;
    for (int m = 0; m < z.r; m++) {
        if (g == 0) gh0[s * z.state + (long)m * z.d + c] = flush(own[m * threads]);
        gparams[(long)m * z.d + c] = own[columns + m * threads];
    }
    gparams[params_len - z.d + c] = gskip;
}

// The columns of B and C of grows: the channel blocks' sums added in order.
template <typename In> __device__ static void mixed(const float *mix, In *grows, int count, int d, int r, int blocks) {
    int width = 2 * (d + r);
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < count; i += (long)gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (int b = 0; b < blocks; b++) sum += mix[(long)b * count + i];
        set(grows + i / (2 * r) * width + 2 * d + i % (2 * r), sum);
    }
}

extern "C" __global__ void scan_mix(const float *mix, float *grows, int count, int d, int r, int blocks) {
    mixed(mix, grows, count, d, r, blocks);
}
extern "C" __global__ void scan_mix_bf16(const float *mix, bf16 *grows, int count, int d, int r, int blocks) {
    mixed(mix, grows, count, d, r, blocks);
}

// RESIDENT blocks of a multiprocessor leave a lane 65,536 / (128·RESIDENT) registers.
#define BACKWARD(NAME, IN, COMPLEX, RESIDENT)                                                                        \
    extern "C" __global__ void __launch_bounds__(128, RESIDENT)                                                                \
        back_rows_##NAME(const IN *rows, const float *params, const float *h0, const float *states, const IN *grad,            \
                         const float *starts, IN *grows, float *mix, float *gparams, float *gh0, int t, int d, int n,          \
                         int seg, int segs, int states_stride, int grad_stride) {                                              \
        back<IN, COMPLEX>(rows, params, h0, states, grad, starts, grows, mix, gparams, gh0,                         \
                                     sizes<COMPLEX>(t, d, n, seg, segs), states_stride, grad_stride);               \
    }

BACKWARD(real_selective, float, false, 3)
BACKWARD(complex_selective, float, true, 2)
BACKWARD(real_selective_bf16, bf16, false, 3)
