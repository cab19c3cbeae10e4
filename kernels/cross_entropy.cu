// Cross-entropy over rows of logits, and its gradient: one warp a row. See src/train/loss/cross_entropy.rs.
//
// loss_r = log Σ exp(x_r − m) + m − x_r[target], m the greatest of the row; x̄ = (softmax(x) − [target])·share.

__device__ static float greatest(float v) {
    for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

__device__ static float total(float v) {
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// Targets are whole numbers held as floats; a target beyond the classes makes its loss NaN, a row of a negative one counts nothing.
extern "C" __global__ void cross_entropy(const float *x, const float *targets, float *losses, float *grad, int rows, int classes,
                                         int share_bits) {
    long row = blockIdx.x * (long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * classes;
    grad += row * classes;
    int target = targets[row];
    if (target < 0) {
        for (int c = threadIdx.x; c < classes; c += 32) grad[c] = 0.0f;
        if (threadIdx.x == 0) losses[row] = 0.0f;
        return;
    }
    float most = __int_as_float(0xff800000), sum = 0.0f, share = __int_as_float(share_bits);
    for (int c = threadIdx.x; c < classes; c += 32) most = fmaxf(most, x[c]);
    most = greatest(most);
    for (int c = threadIdx.x; c < classes; c += 32) sum += expf(x[c] - most);
    sum = total(sum);
    for (int c = threadIdx.x; c < classes; c += 32) grad[c] = (expf(x[c] - most) / sum - (c == target ? 1.0f : 0.0f)) * share;
    if (threadIdx.x == 0) losses[row] = target < classes ? logf(sum) + most - x[target] : __int_as_float(0x7fc00000);
}
