// Dropout's masks: a function of (seed, step, op, stream, position, channel), so the same wherever a clip is cut, on every device.
//
//     y[s, t, c] = 0 where the upper 32 bits of mix(mix(mix(key ^ (first + s)) ^ (position + t)) ^ c) are below `bar`, else `keep`
//
// with `mix` a step of SplitMix64 (Steele et al. 2014) and `key` made of seed, step and op by src/exec/candle/dropout.rs. Numbers of 64 bits
// come in three parts of 22, lowest first. A warp has a row: blocks of (32, rows).

__device__ static unsigned long long whole(int a, int b, int c) {
    return (unsigned long long)a | (unsigned long long)b << 22 | (unsigned long long)c << 44;
}

__device__ static unsigned long long mixed_bits(unsigned long long z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

extern "C" __global__ void dropout_mask(float *y, int rows, int t, int d, int key0, int key1, int key2, int first0, int first1, int first2,
                                        int position0, int position1, int position2, int bar0, int bar1, int bar2, int keep) {
    unsigned long long key = whole(key0, key1, key2), first = whole(first0, first1, first2);
    unsigned long long position = whole(position0, position1, position2), bar = whole(bar0, bar1, bar2);
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        unsigned long long of_row = mixed_bits(mixed_bits(key ^ (first + row / t)) ^ (position + row % t));
        for (int c = threadIdx.x; c < d; c += 32) {
            bool kept = mixed_bits(of_row ^ c) >> 32 >= bar;
            y[(long)row * d + c] = kept ? __int_as_float(keep) : 0.0f;
        }
    }
}
