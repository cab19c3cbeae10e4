// The ops that look back, over ext = the h rows before the call, then the call's t rows: conv, frame, overlap. One thread a result.
//
// conv: y_t = b + Σ_j w_j·ext[t + j]; frame: row i = ext[start + i·period ..][..window]; overlap: fine row n sums, over k < K,
// ext[⌊n/p⌋ + K − 1 − k] columns (n mod p + k·p)·w ... The call's rows lie xs apart. Backward gathers too: nothing is added by two
// threads; gradients go apart to the rows before, gh, and to the call's, gx.

#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(count); i += gridDim.x * blockDim.x)

// Number c of row e of a stream's ext.
__device__ static float at(const float *before, const float *x, long s, int e, int c, int h, int t, int w, int xs) {
    return e < h ? before[(s * h + e) * w + c] : x[(s * t + e - h) * xs + c];
}

__device__ static void put(float *gh, float *gx, long s, int e, int c, int h, int t, int w, float v) {
    if (e < h) gh[(s * h + e) * w + c] = v;
    else gx[(s * t + e - h) * w + c] = v;
}

extern "C" __global__ void conv_forward(const float *before, const float *x, const float *w, const float *b, float *y, int count,
                                        int rows, int taps, int d, int xs, int biased) {
    EACH(i, count) {
        int c = i % d, t = i / d % rows;
        long s = i / d / rows;
        float sum = biased ? b[c] : 0.0f;
        for (int j = 0; j < taps; j++) sum += w[c * taps + j] * at(before, x, s, t + j, c, taps - 1, rows, d, xs);
        y[i] = sum;
    }
}

extern "C" __global__ void conv_backward(const float *w, const float *g, float *gh, float *gx, int count, int rows, int taps,
                                         int d) {
    int h = taps - 1;
    EACH(i, count) {
        int c = i % d, e = i / d % (rows + h);
        long s = i / d / (rows + h);
        const float *from = g + s * rows * d + c;
        float sum = 0.0f;
        for (int j = 0; j < taps; j++) {
            int t = e - j;
            if (t >= 0 && t < rows) sum += w[c * taps + j] * from[(long)t * d];
        }
        put(gh, gx, s, e, c, h, rows, d, sum);
    }
}

// part[share] = (w̄ [d, taps], b̄ [d]) over the rows of a share of a stream: shares a stream in blockIdx.z, streams in blockIdx.y.
// Threads: columns.
extern "C" __global__ void conv_weights(const float *before, const float *x, const float *g, float *part, int rows, int taps,
                                        int d, int xs, int shares) {
    const int AT_ONCE = 4;
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= d) return;
    long s = blockIdx.y;
    int share = (rows + shares - 1) / shares, from = blockIdx.z * share, to = min(rows, from + share);
    part += (s * shares + blockIdx.z) * (taps + 1) * d;
    for (int j0 = 0; j0 < taps; j0 += AT_ONCE) {
        float gw[AT_ONCE] = {}, gb = 0.0f;
        for (int t = from; t < to; t++) {
            float gi = g[(s * rows + t) * d + c];
            gb += gi;
            for (int j = 0; j < AT_ONCE; j++)
                if (j0 + j < taps) gw[j] += gi * at(before, x, s, t + j0 + j, c, taps - 1, rows, d, xs);
        }
        for (int j = 0; j < AT_ONCE; j++)
            if (j0 + j < taps) part[c * taps + j0 + j] = gw[j];
        part[taps * d + c] = gb;
    }
}

extern "C" __global__ void frame_forward(const float *before, const float *x, float *y, int count, int h, int t, int w, int start,
                                         int period, int window, int rows, int xs) {
    int width = w * window;
    EACH(i, count) {
        unsigned row = i / width;
        int in = i % width;
        y[i] = at(before, x, row / rows, start + row % rows * period + in / w, in % w, h, t, w, xs);
    }
}

extern "C" __global__ void frame_backward(const float *g, float *gh, float *gx, int count, int h, int t, int w, int start,
                                          int period, int window, int rows) {
    EACH(i, count) {
        int c = i % w, e = i / w % (h + t), at = e - start;
        long s = i / w / (h + t);
        float sum = 0.0f;
        if (at >= 0)
            for (int r = at < window ? 0 : (at - window) / period + 1; r < rows && r * period <= at; r++)
                sum += g[(s * rows + r) * w * window + (at - r * period) * w + c];
        put(gh, gx, s, e, c, h, t, w, sum);
    }
}

// w: numbers in a fine row; a row of ext has period·overlap·w.
extern "C" __global__ void overlap_forward(const float *before, const float *x, float *y, int count, int h, int t, int w,
                                           int first, int period, int overlap, int rows, int xs) {
    int ext_width = w * period * overlap;
    EACH(i, count) {
        int c = i % w, n = first + i / w % rows;
        long s = i / w / rows;
        float sum = 0.0f;
        for (int k = 0; k < overlap; k++) {
            int e = n / period + overlap - 1 - k;
            sum += at(before, x, s, e, (n % period + k * period) * w + c, h, t, ext_width, xs);
        }
        y[i] = sum;
    }
}

extern "C" __global__ void overlap_backward(const float *g, float *gh, float *gx, int count, int h, int t, int w, int first,
                                            int period, int overlap, int rows) {
    int ext_width = w * period * overlap;
    EACH(i, count) {
        int in = i % ext_width, c = in % w, at = in / w, e = i / ext_width % (h + t);
        long s = i / ext_width / (h + t);
        int n = (e - (overlap - 1) + at / period) * period + at % period - first;
        bool used = e + at / period >= overlap - 1 && n >= 0 && n < rows;
        put(gh, gx, s, e, in, h, t, ext_width, used ? g[(s * rows + n) * w + c] : 0.0f);
    }
}
