// A scan's tables from the model's parameters, and back, in f64: see src/plan/discretise.rs for the formulas.
//
// A_log, A_imag [d, n], log_dt [d], C [d, n] or [d, n, 2]; tables [R, d], R = n or 2n: real rows, then imaginary ones. rule: 0
// selective (A alone), 1 zero-order hold, 2 bilinear (Ā, B̄, C). A warp a channel, a lane a state.

struct Z {
    double re, im;
};

__device__ static Z times(Z x, Z y) { return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re}; }
__device__ static Z scaled(Z x, double by) { return {x.re * by, x.im * by}; }
__device__ static Z over(Z x, Z y) {
    double norm = y.re * y.re + y.im * y.im;
    return {(x.re * y.re + x.im * y.im) / norm, (x.im * y.re - x.re * y.im) / norm};
}

__device__ static void discretise(Z a, double dt, int rule, Z *a_bar, Z *b_bar) {
    if (rule == 1) {
        double grow = exp(dt * a.re);
        *a_bar = {grow * cos(dt * a.im), grow * sin(dt * a.im)};
        *b_bar = over({a_bar->re - 1.0, a_bar->im}, a);
    } else {
        Z half = scaled(a, dt / 2.0), below = {1.0 - half.re, -half.im};
        *a_bar = over({1.0 + half.re, half.im}, below);
        *b_bar = over({dt, 0.0}, below);
    }
}

__device__ static Z pole(const float *a_log, const float *a_imag, int i, int complex) {
    return {-exp((double)a_log[i]), complex ? (double)a_imag[i] : 0.0};
}

extern "C" __global__ void discretise_forward(const float *a_log, const float *a_imag, const float *log_dt, const float *c,
                                              float *out, int d, int n, int complex, int rule) {
    int channel = blockIdx.x * blockDim.y + threadIdx.y;
    if (channel >= d) return;
    int len = d * n * (complex ? 2 : 1);
    for (int k = threadIdx.x; k < n; k += 32) {
        int i = channel * n + k, re = k * d + channel, im = (n + k) * d + channel;
        Z a = pole(a_log, a_imag, i, complex), table[3] = {a};
        if (rule) {
            discretise(a, exp((double)log_dt[channel]), rule, &table[0], &table[1]);
            table[2] = {c[complex ? 2 * i : i], complex ? c[2 * i + 1] : 0.0f};
        }
        for (int t = 0; t < (rule ? 3 : 1); t++) {
            out[t * len + re] = table[t].re;
            if (complex) out[t * len + im] = table[t].im;
        }
    }
}

extern "C" __global__ void discretise_backward(const float *a_log, const float *a_imag, const float *log_dt, const float *g,
                                               float *ga_log, float *ga_imag, float *gdt, float *gc, int d, int n, int complex,
                                               int rule) {
    int channel = blockIdx.x * blockDim.y + threadIdx.y;
    if (channel >= d) return;
    int len = d * n * (complex ? 2 : 1);
    double by_dt = 0.0, dt = rule ? exp((double)log_dt[channel]) : 0.0;
    for (int k = threadIdx.x; k < n; k += 32) {
        int i = channel * n + k, re = k * d + channel, im = (n + k) * d + channel;
        Z a = pole(a_log, a_imag, i, complex), given[3], ga;
        for (int t = 0; t < (rule ? 3 : 1); t++) given[t] = {g[t * len + re], complex ? g[t * len + im] : 0.0f};
        if (!rule) {
            ga = given[0];
        } else {
            Z a_bar, b_bar, slopes[4];
            discretise(a, dt, rule, &a_bar, &b_bar);
            if (rule == 1) {
                Z grown = scaled(a_bar, dt);
                slopes[0] = grown, slopes[1] = over({grown.re - b_bar.re, grown.im - b_bar.im}, a);
                slopes[2] = times(a, a_bar), slopes[3] = a_bar;
            } else {
                Z below = {1.0 - dt * a.re / 2.0, -dt * a.im / 2.0}, q = over({1.0, 0.0}, times(below, below));
                slopes[0] = scaled(q, dt), slopes[1] = scaled(q, dt * dt / 2.0), slopes[2] = times(a, q), slopes[3] = q;
            }
            for (int s = 0; s < 4; s++) slopes[s].im = -slopes[s].im;
            Z x = times(given[0], slopes[0]), y = times(given[1], slopes[1]);
            ga = {x.re + y.re, x.im + y.im};
            by_dt += times(given[0], slopes[2]).re + times(given[1], slopes[3]).re;
            gc[complex ? 2 * i : i] = given[2].re;
            if (complex) gc[2 * i + 1] = given[2].im;
        }
        ga_log[i] = ga.re * a.re;
        if (complex) ga_imag[i] = ga.im;
    }
    for (int o = 16; o; o >>= 1) by_dt += __shfl_xor_sync(0xffffffffu, by_dt, o);
    if (rule && threadIdx.x == 0) gdt[channel] = by_dt * dt;
}
