// The ops that look back, over `ext` = history, then the call's rows: conv, frame, overlap. One thread a result.
//
// conv: y_t = b + Σ_j w_j·ext[t + j]; frame: row i = ext[start + i·period ..][..window]; overlap: fine row n sums, over k < K,
// ext[⌊n/p⌋ + K − 1 − k] columns (n mod p + k·p)·w ... Backward gathers too: nothing is added by two threads.

#define EACH(i, count) \
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (count); i += (long)gridDim.x * blockDim.x)

extern "C" __global__ void conv_forward(const float *ext, const float *w, const float *b, float *y, int count, int rows,
                                        int taps, int d) {
    EACH(i, count) {
        int c = i % d;
        long row = i / d;
        const float *x = ext + (row / rows * (rows + taps - 1) + row % rows) * d + c;
        float sum = b[c];
        for (int j = 0; j < taps; j++) sum += w[c * taps + j] * x[(long)j * d];
        y[i] = sum;
    }
}

extern "C" __global__ void conv_backward(const float *w, const float *g, float *gext, int count, int rows, int taps, int d) {
    int ext_rows = rows + taps - 1;
    EACH(i, count) {
        int c = i % d, e = i / d % ext_rows;
        const float *from = g + i / d / ext_rows * rows * d + c;
        float sum = 0.0f;
        for (int j = 0; j < taps; j++) {
            int t = e - j;
            if (t >= 0 && t < rows) sum += w[c * taps + j] * from[(long)t * d];
        }
        gext[i] = sum;
    }
}

// part[s] = (w̄ [d, taps], b̄ [d]) of stream s = blockIdx.y. Threads: columns.
extern "C" __global__ void conv_weights(const float *ext, const float *g, float *part, int rows, int taps, int d) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= d) return;
    long s = blockIdx.y;
    ext += s * (rows + taps - 1) * d + c;
    g += s * rows * d + c;
    part += s * (taps + 1) * d;
    float gb = 0.0f;
    for (int j = 0; j < taps; j++) {
        float gw = 0.0f;
        for (long t = 0; t < rows; t++) {
            gw += g[t * d] * ext[(t + j) * d];
            if (j == 0) gb += g[t * d];
        }
        part[c * taps + j] = gw;
    }
    part[taps * d + c] = gb;
}

extern "C" __global__ void frame_forward(const float *ext, float *y, int count, int ext_rows, int w, int start, int period,
                                         int window, int rows) {
    int width = w * window;
    EACH(i, count) {
        long row = i / width, s = row / rows;
        y[i] = ext[(s * ext_rows + start + row % rows * period) * w + i % width];
    }
}

extern "C" __global__ void frame_backward(const float *g, float *gext, int count, int ext_rows, int w, int start, int period,
                                          int window, int rows) {
    EACH(i, count) {
        int c = i % w, e = i / w % ext_rows - start;
        long s = i / w / ext_rows;
        float sum = 0.0f;
        if (e >= 0)
            for (int r = e < window ? 0 : (e - window) / period + 1; r < rows && r * period <= e; r++)
                sum += g[(s * rows + r) * w * window + (e - r * period) * w + c];
        gext[i] = sum;
    }
}

// w: numbers in a fine row; a row of ext has period·overlap·w.
extern "C" __global__ void overlap_forward(const float *ext, float *y, int count, int ext_rows, int w, int first, int period,
                                           int overlap, int rows) {
    long ext_width = (long)w * period * overlap;
    EACH(i, count) {
        int c = i % w, n = first + i / w % rows;
        const float *x = ext + i / w / rows * ext_rows * ext_width;
        float sum = 0.0f;
        for (int k = 0; k < overlap; k++)
            sum += x[(n / period + overlap - 1 - k) * ext_width + (n % period + k * period) * w + c];
        y[i] = sum;
    }
}

extern "C" __global__ void overlap_backward(const float *g, float *gext, int count, int ext_rows, int w, int first, int period,
                                            int overlap, int rows) {
    int ext_width = w * period * overlap;
    EACH(i, count) {
        int c = i % w, at = i % ext_width / w;
        long row = i / ext_width;
        int coarse = row % ext_rows - (overlap - 1) + at / period;
        int n = coarse * period + at % period - first;
        gext[i] = coarse >= 0 && n >= 0 && n < rows ? g[(row / ext_rows * rows + n) * w + c] : 0.0f;
    }
}
