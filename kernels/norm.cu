// LayerNorm and RMSNorm over rows: y = (x − μ)·r·w + b, r = 1/√(mean((x − μ)²) + ε). One warp a row.
//
// Backward, with x̂ = (x − μ)·r and ĝ = ȳ·w: x̄ = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)), added to what others that read x gave; the sums over rows for w̄ and b̄ are taken
// apart, from the (μ, r) that the first pass leaves in `stats`.

__device__ static float all(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

__device__ static void moments(const float *x, int d, float eps, bool centred, float *mean, float *r) {
    float sum = 0.0f, square = 0.0f;
    if (centred) {
        for (int c = threadIdx.x; c < d; c += 32) sum += x[c];
        sum = all(sum) / d;
    }
    for (int c = threadIdx.x; c < d; c += 32) square += (x[c] - sum) * (x[c] - sum);
    *mean = sum;
    *r = 1.0f / sqrtf(all(square) / d + eps);
}

extern "C" __global__ void norm_forward(const float *x, const float *w, const float *b, float *y, int rows, int d,
                                        int eps_bits, int centred, int biased) {
    long row = blockIdx.x * (long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * d;
    y += row * d;
    float mean, r;
    moments(x, d, __int_as_float(eps_bits), centred, &mean, &r);
    for (int c = threadIdx.x; c < d; c += 32) y[c] = (x[c] - mean) * r * w[c] + (biased ? b[c] : 0.0f);
}

extern "C" __global__ void norm_backward(const float *x, const float *w, const float *g, const float *others, float *gx,
                                         float *stats, int rows, int d, int eps_bits, int centred, int shared) {
    long row = blockIdx.x * (long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * d;
    g += row * d;
    gx += row * d;
    float mean, r, sum = 0.0f, along = 0.0f;
    moments(x, d, __int_as_float(eps_bits), centred, &mean, &r);
    for (int c = threadIdx.x; c < d; c += 32) {
        float hat = (x[c] - mean) * r, gw = g[c] * w[c];
        sum += gw;
        along += gw * hat;
    }
    sum = centred ? all(sum) / d : 0.0f;
    along = all(along) / d;
    others += shared ? row * d : 0;
    for (int c = threadIdx.x; c < d; c += 32)
        gx[c] = (shared ? others[c] : 0.0f) + r * (g[c] * w[c] - sum - (x[c] - mean) * r * along);
    if (threadIdx.x == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = r;
    }
}

// part[b] = (w̄ [d], b̄ [d]) over the b-th of gridDim.y shares of the rows. Threads: columns.
extern "C" __global__ void norm_weights(const float *x, const float *g, const float *stats, float *part, int rows, int d) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= d) return;
    int share = (rows + gridDim.y - 1) / gridDim.y;
    int end = min(rows, (int)(blockIdx.y + 1) * share);
    float gw = 0.0f, gb = 0.0f;
    for (long r = blockIdx.y * share; r < end; r++) {
        float v = g[r * d + c];
        gw += v * (x[r * d + c] - stats[2 * r]) * stats[2 * r + 1];
        gb += v;
    }
    part[(long)blockIdx.y * 2 * d + c] = gw;
    part[(long)blockIdx.y * 2 * d + d + c] = gb;
}
