// Activations, gates and FiLM: one thread a number. Arguments named ·s are how far apart the rows of a tensor lie; results are
// contiguous.
//
// Where there are o and b: y = o + act(x + b); GLU: y = o + x·sigmoid(z), (x, z) the halves of a row x + b; gate: y = o + x·act(z);
// FiLM: y = o + x·(1 + s) + t, (s, t) the halves of a row. Codes of the activations are those of `Act` in order: src/exec/candle/cuda/elementwise.rs.

struct Value {
    float y, slope;
};

__device__ static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// act(x) and act'(x).
__device__ static Value act(int code, float x) {
    switch (code) {
    case 1: {
        float s = sigmoid(x);
        return {x * s, s * (1.0f + x * (1.0f - s))};
    }
    case 2: {
        float below = 0.5f * (1.0f + erff(x * 0.70710678f));
        return {x * below, below + x * 0.39894228f * expf(-0.5f * x * x)};
    }
    case 3: return x > 0.0f ? Value{x, 1.0f} : Value{0.0f, 0.0f};
    case 4: {
        float s = sigmoid(x);
        return {s, s * (1.0f - s)};
    }
    case 5: {
        float y = tanhf(x);
        return {y, 1.0f - y * y};
    }
    case 6: {
        if (x > 20.0f) return {x, 1.0f};
        return {fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))), sigmoid(x)};
    }
    default: return {x, 1.0f};
    }
}

#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(count); i += gridDim.x * blockDim.x)

// Where number i of contiguous rows lies in rows `apart`.
__device__ static long in_rows(unsigned i, unsigned width, int apart) { return (long)(i / width) * apart + i % width; }

// Number c of the row b; 0 where there is none.
__device__ static float bias(const float *b, int biased, unsigned c) { return biased ? b[c] : 0.0f; }

extern "C" __global__ void activate_forward(const float *x, const float *b, const float *o, float *y, int count, int width, int xs,
                                            int biased, int added, int code) {
    EACH(i, count) {
        float v = act(code, x[in_rows(i, width, xs)] + bias(b, biased, i % width)).y;
        y[i] = added ? o[i] + v : v;
    }
}

extern "C" __global__ void activate_backward(const float *x, const float *b, const float *g, float *gx, int count, int width,
                                             int xs, int gs, int biased, int code) {
    EACH(i, count) gx[i] = g[in_rows(i, width, gs)] * act(code, x[in_rows(i, width, xs)] + bias(b, biased, i % width)).slope;
}

// half: the width of y.
extern "C" __global__ void glu_forward(const float *x, const float *b, const float *o, float *y, int count, int half, int xs,
                                       int biased, int added, int code) {
    EACH(i, count) {
        const float *from = x + in_rows(i, half, xs);
        unsigned c = i % half;
        float v = (from[0] + bias(b, biased, c)) * sigmoid(from[half] + bias(b, biased, half + c));
        y[i] = added ? o[i] + v : v;
    }
}

extern "C" __global__ void glu_backward(const float *x, const float *b, const float *g, float *gx, int count, int half, int xs,
                                        int gs, int biased, int code) {
    EACH(i, count) {
        const float *from = x + in_rows(i, half, xs);
        unsigned c = i % half;
        float *to = gx + in_rows(i, half, 2 * half), gi = g[in_rows(i, half, gs)];
        float s = sigmoid(from[half] + bias(b, biased, half + c));
        to[0] = gi * s;
        to[half] = gi * (from[0] + bias(b, biased, c)) * s * (1.0f - s);
    }
}

extern "C" __global__ void gate_forward(const float *x, const float *z, const float *o, float *y, int count, int width, int xs,
                                        int zs, int added, int code) {
    EACH(i, count) {
        float v = x[in_rows(i, width, xs)] * act(code, z[in_rows(i, width, zs)]).y;
        y[i] = added ? o[i] + v : v;
    }
}

extern "C" __global__ void gate_backward(const float *x, const float *z, const float *g, float *gx, float *gz, int count,
                                         int width, int xs, int zs, int gs, int code) {
    EACH(i, count) {
        Value v = act(code, z[in_rows(i, width, zs)]);
        float gi = g[in_rows(i, width, gs)];
        gx[i] = gi * v.y;
        gz[i] = gi * x[in_rows(i, width, xs)] * v.slope;
    }
}

extern "C" __global__ void film_forward(const float *x, const float *st, const float *o, float *y, int count, int width, int xs,
                                        int zs, int added, int code) {
    EACH(i, count) {
        const float *row = st + in_rows(i, width, zs);
        float v = x[in_rows(i, width, xs)] * (1.0f + row[0]) + row[width];
        y[i] = added ? o[i] + v : v;
    }
}

extern "C" __global__ void film_backward(const float *x, const float *st, const float *g, float *gx, float *gst, int count,
                                         int width, int xs, int zs, int gs, int code) {
    EACH(i, count) {
        const float *row = st + in_rows(i, width, zs);
        float *to = gst + in_rows(i, width, 2 * width), gi = g[in_rows(i, width, gs)];
        gx[i] = gi * (1.0f + row[0]);
        to[0] = gi * x[in_rows(i, width, xs)];
        to[width] = gi;
    }
}

// Rows of x side by side into columns of y, whose rows lie ys apart.
extern "C" __global__ void place_columns(const float *x, float *y, int count, int width, int xs, int ys) {
    EACH(i, count) y[in_rows(i, width, ys)] = x[in_rows(i, width, xs)];
}
