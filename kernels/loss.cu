// The losses of src/train/loss.rs and their gradients by the estimate; the formulas and their letters are there.
//
// Spectra are rows of 2·bins numbers: real parts, then imaginary ones. Constants come as numbers in `k`, in the order of each
// kernel's comment. All sums have a fixed order.

#define EACH(i, count) \
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (count); i += (long)gridDim.x * blockDim.x)

// The sum of `x` over a block of 32·WARPS threads, for its first thread.
template <typename T, int WARPS> __device__ T block_sum(T x) {
    __shared__ T part[WARPS];
    for (int by = 16; by > 0; by /= 2) x += __shfl_down_sync(0xffffffffu, x, by);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; w++) x += part[w];
    return x;
}

// L1 and SI-SDR of example blockIdx.x, 512 threads. k: weights of both, floor of the power. values [examples, 2].
extern "C" __global__ void waveform_terms(const float *x, const float *y, const float *k, float *grad, float *values, int n) {
    __shared__ double by_x, by_y, alpha;
    x += (long)blockIdx.x * n, y += (long)blockIdx.x * n, grad += (long)blockIdx.x * n;
    double p = 0.0, s = 0.0, off = 0.0, l1 = 0.0, e = (double)k[2] * n;
    for (int t = threadIdx.x; t < n; t += 512) p += (double)x[t] * y[t], s += (double)y[t] * y[t], l1 += fabsf(x[t] - y[t]);
    p = block_sum<double, 16>(p), s = block_sum<double, 16>(s), l1 = block_sum<double, 16>(l1);
    if (threadIdx.x == 0) alpha = p / (s + e);
    __syncthreads();
    for (int t = threadIdx.x; t < n; t += 512) {
        double d = x[t] - alpha * y[t];
        off += d * d;
    }
    off = block_sum<double, 16>(off);
    if (threadIdx.x == 0) {
        double a = alpha * alpha * s + e, b = off + e, scale = 10.0 / 2.302585092994045684;
        values[2 * blockIdx.x] = k[0] == 0.0f ? 0.0 : l1 / n;
        values[2 * blockIdx.x + 1] = k[1] == 0.0f ? 0.0 : scale * log(b / a);
        by_x = k[1] * scale * 2.0 / b;
        by_y = k[1] * scale * 2.0 / (s + e) * ((alpha * s - p) / b - alpha * s / a);
    }
    __syncthreads();
    for (int t = threadIdx.x; t < n; t += 512) {
        float d = x[t] - y[t];
        float step = d == 0.0f ? 0.0f : copysignf(k[0] / n, d);
        grad[t] = step + (float)(by_x * (x[t] - alpha * y[t]) + by_y * y[t]);
    }
}

// Row blockIdx.x of a spectrum, 128 threads: g = the gradient by X of all terms but convergence and envelope; sums [rows, 5] =
// Σ(r − q)², Σq², Σ|ln r/q|, Σ w·(r^c − q^c)², Σ|r^(c−1)X − q^(c−1)Y|². k: c, ε², asymmetry, pulls of log, magnitude, complex.
extern "C" __global__ void spectral_terms(const float *x, const float *y, const float *k, float *g, float *sums, int bins) {
    long row = blockIdx.x;
    x += row * 2 * bins, y += row * 2 * bins, g += row * 2 * bins, sums += row * 5;
    float c = k[0], floor = k[1], asymmetry = k[2], by_log = k[3], by_magnitude = k[4], by_complex = k[5];
    float part[5] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (int b = threadIdx.x; b < bins; b += 128) {
        float xr = x[b], xi = x[bins + b], yr = y[b], yi = y[bins + b];
        float r = sqrtf(xr * xr + xi * xi + floor), q = sqrtf(yr * yr + yi * yi + floor);
        float fr = exp2f((c - 1.0f) * log2f(r)), fq = exp2f((c - 1.0f) * log2f(q));
        float off = r * fr - q * fq, weight = off < 0.0f ? asymmetry : 1.0f;
        float er = fr * xr - fq * yr, ei = fr * xi - fq * yi;
        part[0] += (r - q) * (r - q);
        part[1] += q * q;
        part[2] += fabsf(logf(r / q));
        part[3] += weight * off * off;
        part[4] += er * er + ei * ei;
        float radial = by_magnitude * weight * off * fr;
        if (r != q) radial += copysignf(by_log / r, r - q);
        float along = (c - 1.0f) * (er * xr + ei * xi) / (r * r);
        g[b] = by_complex * fr * (er + along * xr) + radial / r * xr;
        g[bins + b] = by_complex * fr * (ei + along * xi) + radial / r * xi;
    }
    for (int i = 0; i < 5; i++) {
        float sum = block_sum<float, 4>(part[i]);
        if (threadIdx.x == 0) sums[i] = sum;
    }
}

// Adds convergence's gradient, where sums [examples, 5] are those of whole examples. k: the weight, the share left in it, ε².
extern "C" __global__ void convergence_pull(const float *x, const float *y, const float *sums, const float *before, const float *k,
                                            float *g, int count, int rows, int bins) {
    EACH(i, count) {
        int b = i % bins;
        long row = i / bins, at = row * 2 * bins + b;
        const float *sum = sums + row / rows * 5;
        float xr = x[at], xi = x[at + bins], yr = y[at], yi = y[at + bins];
        float r = sqrtf(xr * xr + xi * xi + k[1]), q = sqrtf(yr * yr + yi * yi + k[1]);
        float pull = sum[0] > 0.0f ? k[0] / sqrtf(sum[0] * sum[1]) * (r - q) / r : 0.0f;
        g[at] = before[at] + pull * xr;
        g[at + bins] = before[at + bins] + pull * xi;
    }
}

// The bands' envelopes [examples, bands, rows] of a spectrum. band: first bin and end of each; k: ε².
extern "C" __global__ void envelope_bands(const float *x, const float *band, const float *k, float *envelope, int count, int rows,
                                          int bands, int bins) {
    EACH(i, count) {
        int m = i % rows, j = i / rows % bands;
        const float *row = x + (i / rows / bands * rows + m) * 2 * bins;
        float power = k[0];
        for (int b = band[2 * j]; b < band[2 * j + 1]; b++) power += row[b] * row[b] + row[bins + b] * row[bins + b];
        envelope[i] = sqrtf(power);
    }
}

// each [examples, stretches] = 1/(active stretches · bands), 0 where the target's stretch is silent. One block of 64 threads an
// example. k: ε², least power beside the loudest.
extern "C" __global__ void envelope_active(const float *y, const float *k, float *each, int rows, int bands, int stretch,
                                           int stretches) {
    __shared__ float loudest;
    __shared__ int count;
    y += (long)blockIdx.x * bands * rows, each += (long)blockIdx.x * stretches;
    for (int s = threadIdx.x; s < stretches; s += 64) {
        int start = s * max(stretch / 2, 1), end = min(start + stretch, rows);
        float power = 0.0f;
        for (int j = 0; j < bands; j++)
            for (int m = start; m < end; m++) power += y[(long)j * rows + m] * y[(long)j * rows + m];
        each[s] = power;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        loudest = 0.0f, count = 0;
        for (int s = 0; s < stretches; s++) loudest = fmaxf(loudest, each[s]);
        float least = fmaxf(k[1] * loudest, k[0] * 2 * stretch * bands);
        for (int s = 0; s < stretches; s++) count += each[s] > least;
        for (int s = 0; s < stretches; s++) each[s] = each[s] > least ? 1.0f / (count * bands) : 0.0f;
    }
}

__device__ float warp_sum(float x) {
    for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

// Band blockIdx.x % bands of example blockIdx.x / bands, one warp: values = Σ each·(1 − ρ), pull = its gradient by x. k: ε².
extern "C" __global__ void envelope_pull(const float *x, const float *y, const float *each, const float *k, float *pull,
                                         float *values, int rows, int bands, int stretch, int stretches) {
    int lane = threadIdx.x;
    x += (long)blockIdx.x * rows, y += (long)blockIdx.x * rows, pull += (long)blockIdx.x * rows;
    each += blockIdx.x / bands * stretches;
    for (int m = lane; m < rows; m += 32) pull[m] = 0.0f;
    float value = 0.0f;
    for (int s = 0; s < stretches; s++) {
        int start = s * max(stretch / 2, 1), end = min(start + stretch, rows);
        float n = end - start, mx = 0.0f, my = 0.0f, xx = 0.0f, yy = 0.0f, xy = 0.0f;
        for (int m = start + lane; m < end; m += 32) mx += x[m], my += y[m];
        mx = warp_sum(mx) / n, my = warp_sum(my) / n;
        for (int m = start + lane; m < end; m += 32) {
            float u = x[m] - mx, v = y[m] - my;
            xx += u * u, yy += v * v, xy += u * v;
        }
        float a = sqrtf(warp_sum(xx) + n * k[0]), b = sqrtf(warp_sum(yy) + n * k[0]), rho = warp_sum(xy) / (a * b);
        value += each[s] * (1.0f - rho);
        __syncwarp();
        for (int m = start + lane; m < end; m += 32) pull[m] -= each[s] * ((y[m] - my) / b - rho * (x[m] - mx) / a) / a;
        __syncwarp();
    }
    if (lane == 0) values[blockIdx.x] = value;
}

// g = before + the envelopes' pull on the spectrum. k: the weight.
extern "C" __global__ void envelope_spread(const float *x, const float *band, const float *envelope, const float *pull,
                                           const float *before, const float *k, float *g, int count, int rows, int bands, int bins) {
    EACH(i, count) {
        int b = i % bins;
        long row = i / bins, example = row / rows, at = row * 2 * bins + b;
        float by = 0.0f;
        for (int j = 0; j < bands; j++)
            if (b >= band[2 * j] && b < band[2 * j + 1]) {
                long e = (example * bands + j) * rows + row % rows;
                by = k[0] * pull[e] / envelope[e];
            }
        g[at] = before[at] + by * x[at];
        g[at + bins] = before[at + bins] + by * x[at + bins];
    }
}
