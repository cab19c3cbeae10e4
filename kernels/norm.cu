// LayerNorm and RMSNorm over rows: y = (x − μ)·r·w + b, r = 1/√(mean((x − μ)²) + ε). One warp a row.
//
// Backward, with x̂ = (x − μ)·r and ĝ = ȳ·w: x̄ = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)), added to what others that read x gave; w̄ = Σ ȳ·x̂ and b̄ = Σ ȳ over rows.
#include "device.cuh"

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

// part[b] = (w̄ [d], b̄ [d]) over the rows of block b. Blocks stride over the rows.
extern "C" __global__ void norm_backward(const float *x, const float *w, const float *g, const float *others, float *gx, float *part, int rows, int d,
                                         int eps_bits, int centred, int added) {
    DYNAMIC_SHARED;
    // A lane adds to its own columns of its warp's (w̄, b̄).
    float *own = (float *)shared + threadIdx.y * 2 * d;
    for (int i = threadIdx.x; i < 2 * d; i += 32) own[i] = 0.0f;
    __syncwarp();
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        long at = (long)row * d;
        float mean, r, sum = 0.0f, along = 0.0f;
        moments(x + at, d, __int_as_float(eps_bits), centred, &mean, &r);
        for (int c = threadIdx.x; c < d; c += 32) {
            float hat = (x[at + c] - mean) * r, gw = g[at + c] * w[c];
            sum += gw;
            along += gw * hat;
            own[c] += g[at + c] * hat;
            own[d + c] += g[at + c];
        }
        sum = centred ? all(sum) / d : 0.0f;
        along = all(along) / d;
        for (int c = threadIdx.x; c < d; c += 32)
            gx[at + c] = (added ? others[at + c] : 0.0f) + r * (g[at + c] * w[c] - sum - (x[at + c] - mean) * r * along);
    }
    __syncthreads();
    for (int i = threadIdx.y * 32 + threadIdx.x; i < 2 * d; i += blockDim.y * 32) {
        float sum = 0.0f;
        for (int y = 0; y < blockDim.y; y++) sum += ((float *)shared)[y * 2 * d + i];
        part[(long)blockIdx.x * 2 * d + i] = sum;
    }
}
