// AdamW over all weights at once, with clipping by the global norm and a moving average: see src/train/adamw.rs.
//
// A gradient here is a sum over examples; `share` makes it a mean. What is not finite leaves everything as it was.

__device__ static float total(float v) {
    __shared__ float part[32];
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0.0f;
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// part[b] = the sum of squares of the b-th block's numbers.
extern "C" __global__ void square_sums(const float *g, float *part, int count) {
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) sum = fmaf(g[i], g[i], sum);
    sum = total(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// A weight's rate is `rate` times rates[i]; decays[i] is 1 where it decays. Floats of a step come as bits.
extern "C" __global__ void adamw(const float *g, const float *part, const float *w, const float *m, const float *v,
                                 const float *ema, const float *rates, const float *decays, float *w1, float *m1, float *v1,
                                 float *ema1, float *norm, int count, int parts, int share_bits, int clip_bits, int b1_bits,
                                 int b2_bits, int eps_bits, int decay_bits, int rate_bits, int bias1_bits, int bias2_bits,
                                 int keep_bits) {
    float share = __int_as_float(share_bits), clip = __int_as_float(clip_bits), b1 = __int_as_float(b1_bits);
    float b2 = __int_as_float(b2_bits), eps = __int_as_float(eps_bits), decay = __int_as_float(decay_bits);
    float rate = __int_as_float(rate_bits), bias1 = __int_as_float(bias1_bits), bias2 = __int_as_float(bias2_bits);
    float d = __int_as_float(keep_bits), square = 0.0f;
    for (int i = threadIdx.x; i < parts; i += blockDim.x) square += part[i];
    float size = sqrtf(total(square)) * share;
    if (blockIdx.x == 0 && threadIdx.x == 0) *norm = size;
    bool fine = isfinite(size);
    float scale = share * (clip > 0.0f && size > clip ? clip / size : 1.0f);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        float wi = w[i], mi = m[i], vi = v[i], ei = ema[i];
        if (fine) {
            float gi = g[i] * scale, own = rate * rates[i];
            mi = b1 * mi + (1.0f - b1) * gi;
            vi = b2 * vi + (1.0f - b2) * gi * gi;
            wi = wi * (1.0f - own * decay * decays[i]) - own / bias1 * mi / (sqrtf(vi) / bias2 + eps);
            ei = d * ei + (1.0f - d) * wi;
        }
        w1[i] = wi, m1[i] = mi, v1[i] = vi, ema1[i] = ei;
    }
}
