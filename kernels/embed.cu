// The gradient of a table of rows that tokens chose: table_bar[v] = Σ over rows with token v of g. Sums in a fixed order.

#define TOKENS 256

// part[b, v, c] = the sum over the b-th of gridDim.y shares of the rows, for TOKENS tokens a block and 32 columns. Threads: 32 columns × 8;
// each row of threads owns every eighth token, so that no two add to one place. Tokens are whole numbers held as floats.
extern "C" __global__ void embed_back(const float *g, const float *tokens, float *part, int rows, int d, int vocabulary) {
    __shared__ float sums[TOKENS][32];
    int x = threadIdx.x, y = threadIdx.y, c = blockIdx.x * 32 + x, first = blockIdx.z * TOKENS;
    int share = (rows + gridDim.y - 1) / gridDim.y, from = blockIdx.y * share, to = min(rows, from + share);
    for (int v = y; v < TOKENS; v += 8) sums[v][x] = 0.0f;
    for (int i = from; i < to; i += 32) {
        int mine = i + x < to ? (int)tokens[i + x] - first : -1;
        for (int k = 0; k < 32; k++) {
            int v = __shfl_sync(0xffffffffu, mine, k);
            if (v >= 0 && v < TOKENS && v % 8 == y && c < d) sums[v][x] += g[(long)(i + k) * d + c];
        }
    }
    if (c >= d) return;
    for (int v = y; v < TOKENS && first + v < vocabulary; v += 8) part[((long)blockIdx.y * vocabulary + first + v) * d + c] = sums[v][x];
}
