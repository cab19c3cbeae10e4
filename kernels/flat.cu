// Tensors that lie anywhere, side by side in one.

struct Parts {
    const float *from[64];
    unsigned at[64], len[64];
};

// to[at ..][.. len] = from, of part blockIdx.y.
extern "C" __global__ void place_parts(Parts parts, float *to) {
    const float *from = parts.from[blockIdx.y];
    to += parts.at[blockIdx.y];
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < parts.len[blockIdx.y]; i += gridDim.x * blockDim.x) to[i] = from[i];
}
