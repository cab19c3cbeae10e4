// Activations, gates and FiLM: one thread a number.
//
// y = act(x); GLU: y = x·sigmoid(z), (x, z) the halves of a row; gate: y = x·act(z); FiLM: y = x·(1 + s) + t, (s, t) the
// halves of a row. Codes of the activations are those of `Act` in order: src/exec/candle/cuda/elementwise.rs.

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
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (count); i += (long)gridDim.x * blockDim.x)

extern "C" __global__ void activate_forward(const float *x, float *y, int count, int code) {
    EACH(i, count) y[i] = act(code, x[i]).y;
}

extern "C" __global__ void activate_backward(const float *x, const float *g, float *gx, int count, int code) {
    EACH(i, count) gx[i] = g[i] * act(code, x[i]).slope;
}

extern "C" __global__ void glu_forward(const float *x, float *y, int count, int half) {
    EACH(i, count) {
        const float *row = x + i / half * 2 * half + i % half;
        y[i] = row[0] * sigmoid(row[half]);
    }
}

extern "C" __global__ void glu_backward(const float *x, const float *g, float *gx, int count, int half) {
    EACH(i, count) {
        long at = i / half * 2 * half + i % half;
        float s = sigmoid(x[at + half]);
        gx[at] = g[i] * s;
        gx[at + half] = g[i] * x[at] * s * (1.0f - s);
    }
}

extern "C" __global__ void gate_forward(const float *x, const float *z, float *y, int count, int code) {
    EACH(i, count) y[i] = x[i] * act(code, z[i]).y;
}

extern "C" __global__ void gate_backward(const float *x, const float *z, const float *g, float *gx, float *gz, int count,
                                         int code) {
    EACH(i, count) {
        Value v = act(code, z[i]);
        gx[i] = g[i] * v.y;
        gz[i] = g[i] * x[i] * v.slope;
    }
}

extern "C" __global__ void film_forward(const float *x, const float *st, float *y, int count, int d) {
    EACH(i, count) {
        const float *row = st + i / d * 2 * d + i % d;
        y[i] = x[i] * (1.0f + row[0]) + row[d];
    }
}

extern "C" __global__ void film_backward(const float *x, const float *st, const float *g, float *gx, float *gst, int count,
                                         int d) {
    EACH(i, count) {
        long at = i / d * 2 * d + i % d;
        gx[i] = g[i] * (1.0f + st[at]);
        gst[at] = g[i] * x[i];
        gst[at + d] = g[i];
    }
}
