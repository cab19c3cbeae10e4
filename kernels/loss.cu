// The losses of src/train/loss.rs and their gradients by the estimate; the formulas and their letters are there.
//
// A spectrum never leaves its block: frames are cut, windowed and transformed in shared memory where their terms are summed, and
// again where their gradient is transformed back. A real frame of n = 2m numbers is the transform of m pairs of neighbours.
// Constants come as the bits of an int. All sums have a fixed order.
//
//   spectral_sums ─► sums of terms, envelopes ─► envelope_active, envelope_pull, difference_share ─► spectral_pull ─► frames
//   ─► add_frames ─► ∂L/∂x
#include "device.cuh"

#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(count); i += gridDim.x * blockDim.x)

// The sum of `x` over a block of whole warps, for its first thread.
template <typename T> __device__ T block_sum(T x) {
    __shared__ T part[32];
    for (int by = 16; by > 0; by /= 2) x += __shfl_down_sync(0xffffffffu, x, by);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < blockDim.x / 32; w++) x += part[w];
    return x;
}

__device__ static float warp_sum(float x) {
    for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

// Mean |x − y| and SI-SDR of example blockIdx.x, and the gradient of the second: values [examples, 2].
extern "C" __global__ void waveform_terms(const float *x, const float *y, float *grad, float *values, int n, int l1_bits,
                                          int si_sdr_bits, int floor_bits) {
    __shared__ double by_x, by_y, alpha;
    float by_l1 = __int_as_float(l1_bits), by_si_sdr = __int_as_float(si_sdr_bits);
    x += (long)blockIdx.x * n, y += (long)blockIdx.x * n, grad += (long)blockIdx.x * n;
    double p = 0.0, s = 0.0, off = 0.0, l1 = 0.0, e = (double)__int_as_float(floor_bits) * n;
    for (int t = threadIdx.x; t < n; t += blockDim.x) p += (double)x[t] * y[t], s += (double)y[t] * y[t], l1 += fabsf(x[t] - y[t]);
    p = block_sum(p), s = block_sum(s), l1 = block_sum(l1);
    if (threadIdx.x == 0) alpha = p / (s + e);
    __syncthreads();
    for (int t = threadIdx.x; t < n; t += blockDim.x) {
        double d = x[t] - alpha * y[t];
        off += d * d;
    }
    off = block_sum(off);
    if (threadIdx.x == 0) {
        double a = alpha * alpha * s + e, b = off + e, scale = 10.0 / 2.302585092994045684;
        values[2 * blockIdx.x] = by_l1 == 0.0f ? 0.0 : l1 / n;
        values[2 * blockIdx.x + 1] = by_si_sdr == 0.0f ? 0.0 : scale * log(b / a);
        by_x = by_si_sdr * scale * 2.0 / b;
        by_y = by_si_sdr * scale * 2.0 / (s + e) * ((alpha * s - p) / b - alpha * s / a);
    }
    __syncthreads();
    for (int t = threadIdx.x; t < n; t += blockDim.x) grad[t] = by_x * (x[t] - alpha * y[t]) + by_y * y[t];
}

// share [examples]: what the gradient of the weighted differences S is multiplied by, 1 or r/(least + S). waveform [examples, 2],
// spectral [examples, 6]: the terms.
extern "C" __global__ void difference_share(const float *waveform, const float *spectral, float *share, int examples, int relative_bits,
                                            int least_bits, int l1_bits, int convergence_bits, int log_bits, int magnitude_bits,
                                            int complex_bits) {
    float relative = __int_as_float(relative_bits);
    const float weights[] = {__int_as_float(convergence_bits), __int_as_float(log_bits), __int_as_float(magnitude_bits),
                             __int_as_float(complex_bits)};
    const int at[] = {0, 2, 3, 4};
    EACH(e, examples) {
        float sum = __int_as_float(l1_bits) * waveform[2 * e];
        for (int i = 0; i < 4; i++)
            if (weights[i] != 0.0f) sum += weights[i] * spectral[6 * e + at[i]];
        share[e] = relative == 0.0f ? 1.0f : relative / (__int_as_float(least_bits) + sum);
    }
}

// after = before + each example's share of the gradient of mean |x − y|.
extern "C" __global__ void l1_pull(const float *x, const float *y, const float *share, const float *before, float *after, int count,
                                   int n, int l1_bits) {
    EACH(i, count) {
        float d = x[i] - y[i], step = share[i / n] * __int_as_float(l1_bits) / n;
        after[i] = before[i] + (d == 0.0f ? 0.0f : copysignf(step, d));
    }
}

// Z_k = Σ_j z_j·e^(sign·2πi·jk/m) of `signals` sequences, each m + 1 after the other: where they are then, `from` or `to`. turns: cos
// and sin of 2πj/2m. Stockham's order for powers of two, the definition for other m.
__device__ static float2 *transform(float2 *from, float2 *to, const float2 *turns, int m, int signals, float sign) {
    int half = m / 2;
    if (m & (m - 1)) {
        for (int i = threadIdx.x; i < signals * m; i += blockDim.x) {
            int k = i % m, base = i / m * (m + 1);
            float2 sum = {0.0f, 0.0f};
            for (int j = 0, at = 0; j < m; j++, at = at + k < m ? at + k : at + k - m) {
                float2 z = from[base + j], w = turns[2 * at];
                sum.x += z.x * w.x - sign * z.y * w.y, sum.y += z.y * w.x + sign * z.x * w.y;
            }
            to[base + k] = sum;
        }
        __syncthreads();
        return to;
    }
    for (int s = 1; s < m; s *= 2) {
        for (int i = threadIdx.x; i < signals * half; i += blockDim.x) {
            int in = i & (half - 1), q = in & (s - 1), base = i / half * (m + 1);
            float2 a = from[base + in], b = from[base + in + half], w = turns[2 * (in - q)];
            float dx = a.x - b.x, dy = a.y - b.y, wy = sign * w.y;
            float2 *at = to + base + 2 * in - q;
            at[0] = {a.x + b.x, a.y + b.y};
            at[s] = {dx * w.x - dy * wy, dy * w.x + dx * wy};
        }
        __syncthreads();
        float2 *old = from;
        from = to, to = old;
    }
    return from;
}

// The frame of 2m numbers of `x` from `start` on, windowed, zeros beyond its `len`.
__device__ static void load_frame(const float *x, const float *window, float2 *to, int start, int len, int m) {
    for (int j = threadIdx.x; j < m; j += blockDim.x) {
        int t = start + 2 * j;
        to[j] = {t >= 0 && t < len ? x[t] * window[2 * j] : 0.0f, t + 1 >= 0 && t + 1 < len ? x[t + 1] * window[2 * j + 1] : 0.0f};
    }
}

// Number k ≤ m of the spectrum of a real frame, from the transform of its pairs.
__device__ static float2 spectrum(const float2 *z, const float2 *turns, int k, int m) {
    float2 a = z[k == m ? 0 : k], b = z[k == 0 ? 0 : m - k], w = turns[k];
    float ex = 0.5f * (a.x + b.x), ey = 0.5f * (a.y - b.y), ox = 0.5f * (a.y + b.y), oy = 0.5f * (b.x - a.x);
    return {ex + w.x * ox + w.y * oy, ey + w.x * oy - w.y * ox};
}

// The spectra of both sounds at row blockIdx.x of example blockIdx.y, as `spectrum` reads them; *spare: the other half of the room.
__device__ static float2 *both_spectra(const float *x, const float *y, const float *window, const float2 *turns, float2 *room, int len,
                                       int m, int hop, float2 **spare) {
    int start = (int)blockIdx.x * hop - m;
    load_frame(x + (long)blockIdx.y * len, window, room, start, len, m);
    load_frame(y + (long)blockIdx.y * len, window, room + m + 1, start, len, m);
    __syncthreads();
    float2 *other = room + 2 * (m + 1), *z = transform(room, other, turns, m, 2, -1.0f);
    *spare = z == room ? other : room;
    return z;
}

// What the compressed terms make of X and Y.
struct Compressed {
    float r, q, fr, off, weight, er, ei;
};
__device__ static Compressed compressed(float2 x, float2 y, float c, float floor, float asymmetry) {
    Compressed of;
    of.r = sqrtf(x.x * x.x + x.y * x.y + floor), of.q = sqrtf(y.x * y.x + y.y * y.y + floor);
    float fq = exp2f((c - 1.0f) * log2f(of.q));
    of.fr = exp2f((c - 1.0f) * log2f(of.r));
    of.off = of.r * of.fr - of.q * fq;
    of.weight = of.off < 0.0f ? asymmetry : 1.0f;
    of.er = of.fr * x.x - fq * y.x, of.ei = of.fr * x.y - fq * y.y;
    return of;
}

// Row blockIdx.x of example blockIdx.y: sums [examples, rows, 5] = Σ(r − q)², Σq², Σ|ln r/q|, Σ w·(r^c − q^c)²,
// Σ|r^(c−1)X − q^(c−1)Y|², and the bands' envelopes of x and of y [2, examples, bands, rows]. window: with the scale, 2m; band: first
// bin and end of each.
extern "C" __global__ void spectral_sums(const float *x, const float *y, const float *window, const float *turn, const float *band,
                                         float *sums, float *envelopes, int len, int m, int hop, int bands, int c_bits, int floor_bits,
                                         int asymmetry_bits) {
    DYNAMIC_SHARED;
    float c = __int_as_float(c_bits), floor = __int_as_float(floor_bits), asymmetry = __int_as_float(asymmetry_bits);
    const float2 *turns = (const float2 *)turn;
    float2 *spare, *z = both_spectra(x, y, window, turns, (float2 *)shared, len, m, hop, &spare);
    float *powers = (float *)spare, part[5] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (int k = threadIdx.x; k <= m; k += blockDim.x) {
        float2 a = spectrum(z, turns, k, m), b = spectrum(z + m + 1, turns, k, m);
        Compressed of = compressed(a, b, c, floor, asymmetry);
        part[0] += (of.r - of.q) * (of.r - of.q);
        part[1] += of.q * of.q;
        part[2] += fabsf(logf(of.r / of.q));
        part[3] += of.weight * of.off * of.off;
        part[4] += of.er * of.er + of.ei * of.ei;
        powers[k] = a.x * a.x + a.y * a.y, powers[m + 1 + k] = b.x * b.x + b.y * b.y;
    }
    long row = (long)blockIdx.y * gridDim.x + blockIdx.x;
    for (int i = 0; i < 5; i++) {
        float sum = block_sum(part[i]);
        if (threadIdx.x == 0) sums[row * 5 + i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x / 32; i < 2 * bands; i += blockDim.x / 32) {
        int j = i % bands, which = i / bands;
        float power = 0.0f;
        for (int k = (int)band[2 * j] + threadIdx.x % 32; k < (int)band[2 * j + 1]; k += 32) power += powers[which * (m + 1) + k];
        power = warp_sum(power);
        if (threadIdx.x % 32 == 0)
            envelopes[(((long)which * gridDim.y + blockIdx.y) * bands + j) * gridDim.x + blockIdx.x] = sqrtf(power + floor);
    }
}

// The gradient of all terms by frame blockIdx.x of example blockIdx.y: frames [examples, rows, 2m]. sums [examples, 5]; share
// [examples]: what the differences' is multiplied by; band_of: the band of each bin, or −1; envelope, pull [examples, bands, rows]: x's envelopes and the envelope term's gradient by them.
extern "C" __global__ void spectral_pull(const float *x, const float *y, const float *window, const float *turn, const float *sums,
                                         const float *share, const float *band_of, const float *envelope, const float *pull,
                                         float *frames, int len, int m, int hop, int bands, int c_bits, int floor_bits, int asymmetry_bits,
                                         int convergence_bits, int log_bits, int magnitude_bits, int complex_bits, int envelope_bits) {
    DYNAMIC_SHARED;
    float c = __int_as_float(c_bits), floor = __int_as_float(floor_bits), asymmetry = __int_as_float(asymmetry_bits);
    float part = share[blockIdx.y], by_log = part * __int_as_float(log_bits), by_magnitude = part * __int_as_float(magnitude_bits);
    float by_complex = part * __int_as_float(complex_bits), by_envelope = __int_as_float(envelope_bits);
    const float *sum = sums + 5 * blockIdx.y;
    float by_convergence = part * __int_as_float(convergence_bits);
    if (by_convergence != 0.0f) by_convergence = sum[0] > 0.0f ? by_convergence / (sqrtf(sum[0]) * sqrtf(sum[1])) : 0.0f;
    const float2 *turns = (const float2 *)turn;
    float2 *g, *z = both_spectra(x, y, window, turns, (float2 *)shared, len, m, hop, &g);
    for (int k = threadIdx.x; k <= m; k += blockDim.x) {
        float2 a = spectrum(z, turns, k, m), b = spectrum(z + m + 1, turns, k, m);
        Compressed of = compressed(a, b, c, floor, asymmetry);
        float radial = by_magnitude * of.weight * of.off * of.fr + by_convergence * (of.r - of.q);
        if (of.r != of.q) radial += copysignf(by_log / of.r, of.r - of.q);
        float along = by_complex * of.fr * (c - 1.0f) * (of.er * a.x + of.ei * a.y) / (of.r * of.r) + radial / of.r;
        int j = bands > 0 ? (int)band_of[k] : -1;
        if (j >= 0) {
            long at = ((long)blockIdx.y * bands + j) * gridDim.x + blockIdx.x;
            along += by_envelope * pull[at] / envelope[at];
        }
        g[k] = {by_complex * of.fr * of.er + along * a.x, by_complex * of.fr * of.ei + along * a.y};
    }
    __syncthreads();
    // With H = g/2 and its mirror image, of 2m numbers, the pairs' spectrum is H_k + H_{k+m} + i·e^(2πi·k/2m)·(H_k − H_{k+m}).
    for (int k = threadIdx.x; k < m; k += blockDim.x) {
        float2 h = {0.5f * g[k].x, 0.5f * g[k].y}, l = {0.5f * g[m - k].x, -0.5f * g[m - k].y}, w = turns[k];
        if (k == 0) h = {g[0].x, 0.0f}, l = {g[m].x, 0.0f};
        float dx = h.x - l.x, dy = h.y - l.y;
        z[k] = {h.x + l.x - dx * w.y - dy * w.x, h.y + l.y + dx * w.x - dy * w.y};
    }
    __syncthreads();
    float2 *found = transform(z, g, turns, m, 1, 1.0f);
    frames += ((long)blockIdx.y * gridDim.x + blockIdx.x) * 2 * m;
    for (int j = threadIdx.x; j < m; j += blockDim.x) {
        frames[2 * j] = found[j].x * window[2 * j];
        frames[2 * j + 1] = found[j].y * window[2 * j + 1];
    }
}

// grad = before + the frames [examples, rows, 2m] where they lie in the sound.
extern "C" __global__ void add_frames(const float *frames, const float *before, float *grad, int count, int len, int rows, int m,
                                      int hop) {
    EACH(i, count) {
        int example = i / len, t = i % len + m, first = t < 2 * m ? 0 : (t - 2 * m) / hop + 1;
        float sum = before[i];
        for (int row = first; row < rows && row * hop <= t; row++) sum += frames[((long)example * rows + row) * 2 * m + t - row * hop];
        grad[i] = sum;
    }
}

// after [examples, 6] = before + the terms' shares: convergence, Σq² (unused), log, magnitude, complex, envelope. each [examples,
// bands]: the bands' envelope terms.
extern "C" __global__ void spectral_values(const float *sums, const float *each, const float *before, float *after, int examples,
                                           int bands, int share_bits, int mean_bits) {
    float share = __int_as_float(share_bits), mean = __int_as_float(mean_bits);
    EACH(e, examples) {
        const float *sum = sums + 5 * e;
        float envelope = 0.0f;
        for (int j = 0; j < bands; j++) envelope += each[e * bands + j];
        after[6 * e] = before[6 * e] + share * sqrtf(sum[0]) / sqrtf(sum[1]);
        for (int i = 1; i < 5; i++) after[6 * e + i] = before[6 * e + i] + mean * sum[i];
        after[6 * e + 5] = before[6 * e + 5] + share * envelope;
    }
}

// each [examples, stretches] = 1/(active stretches · bands), 0 where the target's stretch is silent. One block an example.
extern "C" __global__ void envelope_active(const float *y, float *each, int rows, int bands, int stretch, int stretches, int floor_bits,
                                           int least_bits) {
    __shared__ float loudest;
    __shared__ int count;
    y += (long)blockIdx.x * bands * rows, each += (long)blockIdx.x * stretches;
    for (int s = threadIdx.x / 32; s < stretches; s += blockDim.x / 32) {
        int start = s * max(stretch / 2, 1), end = min(start + stretch, rows);
        float power = 0.0f;
        for (int j = 0; j < bands; j++)
            for (int m = start + threadIdx.x % 32; m < end; m += 32) power += y[(long)j * rows + m] * y[(long)j * rows + m];
        power = warp_sum(power);
        if (threadIdx.x % 32 == 0) each[s] = power;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        loudest = 0.0f, count = 0;
        for (int s = 0; s < stretches; s++) loudest = fmaxf(loudest, each[s]);
        float least = fmaxf(__int_as_float(least_bits) * loudest, __int_as_float(floor_bits) * 2 * stretch * bands);
        for (int s = 0; s < stretches; s++) count += each[s] > least;
        for (int s = 0; s < stretches; s++) each[s] = each[s] > least ? 1.0f / (count * bands) : 0.0f;
    }
}

// Band blockIdx.x % bands of example blockIdx.x / bands, one warp: values = Σ each·(1 − ρ), pull = its gradient by x.
extern "C" __global__ void envelope_pull(const float *x, const float *y, const float *each, float *pull, float *values,
                                         int rows, int bands, int stretch, int stretches, int floor_bits) {
    int lane = threadIdx.x;
    x += (long)blockIdx.x * rows, y += (long)blockIdx.x * rows, pull += (long)blockIdx.x * rows;
    each += blockIdx.x / bands * stretches;
    for (int m = lane; m < rows; m += 32) pull[m] = 0.0f;
    float value = 0.0f, floor = __int_as_float(floor_bits);
    for (int s = 0; s < stretches; s++) {
        int start = s * max(stretch / 2, 1), end = min(start + stretch, rows);
        float n = end - start, mx = 0.0f, my = 0.0f, xx = 0.0f, yy = 0.0f, xy = 0.0f;
        for (int m = start + lane; m < end; m += 32) mx += x[m], my += y[m];
        mx = warp_sum(mx) / n, my = warp_sum(my) / n;
        for (int m = start + lane; m < end; m += 32) {
            float u = x[m] - mx, v = y[m] - my;
            xx += u * u, yy += v * v, xy += u * v;
        }
        float a = sqrtf(warp_sum(xx) + n * floor), b = sqrtf(warp_sum(yy) + n * floor), rho = warp_sum(xy) / (a * b);
        value += each[s] * (1.0f - rho);
        __syncwarp();
        for (int m = start + lane; m < end; m += 32) pull[m] -= each[s] * ((y[m] - my) / b - rho * (x[m] - mx) / a) / a;
        __syncwarp();
    }
    if (lane == 0) values[blockIdx.x] = value;
}
