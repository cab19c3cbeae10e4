// Sums over rows.

// y[b, c] = the sum of x[r, c] over the b-th of gridDim.y shares of the rows, in a fixed order. Threads: 32 columns × 8 rows.
extern "C" __global__ void sum_rows(const float *x, float *y, int rows, int width) {
    __shared__ float part[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    int share = (rows + gridDim.y - 1) / gridDim.y;
    int end = min(rows, (int)(blockIdx.y + 1) * share);
    float sum = 0.0f;
    if (c < width)
        for (int r = blockIdx.y * share + threadIdx.y; r < end; r += 8) sum += x[(long)r * width + c];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < width) {
        for (int k = 1; k < 8; k++) sum += part[k][threadIdx.x];
        y[(long)blockIdx.y * width + c] = sum;
    }
}
