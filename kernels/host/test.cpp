// The kernels, run on the host (cuda.h), against what they are defined to compute, in f64. No GPU, no CUDA.
//
// Forward passes are held against plain loops; backward passes of linear moves by ⟨g, A·x⟩ = ⟨Aᵀ·g, x⟩, of all else against
// gradients of the plain loops, or against differences of them. What a kernel must write is NaN before it runs.
#include "cuda.h"
#include "cuda_bf16.h"

namespace elementwise {
#include "../elementwise.cu"
}
#undef EACH
namespace history {
#include "../history.cu"
}
#undef EACH
namespace norm {
#include "../norm.cu"
}
namespace flat {
#include "../flat.cu"
}
#include "../device.cuh"
namespace loss {
#include "../loss.cu"
}
#undef EACH
namespace sums {
#include "../sums.cu"
}
namespace optimiser {
#include "../adamw.cu"
}
namespace classes {
#include "../cross_entropy.cu"
}
namespace embeds {
#include "../embed.cu"
}
namespace rounds {
#include "../round.cu"
}
namespace drops {
#include "../dropout.cu"
}
namespace tables {
#include "../discretise.cu"
}
#include "../scan_forward.cu"
#include "../scan_backward.cu"
#include "../scan_relay.cu"
#undef STAGED
#undef AHEAD
#undef PITCH
#undef CHUNK
namespace fixed {
#include "../invariant.cu"
}

#include <array>
#include <complex>
#include <random>
#include <string>

typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;
typedef std::complex<double> Complex;

static std::mt19937 draws(7);
static int checks = 0, failures = 0;

static Floats noise(size_t n, float low = -1.0f, float high = 1.0f) {
    std::uniform_real_distribution<float> uniform(low, high);
    Floats x(n);
    for (float &v : x) v = uniform(draws);
    return x;
}
static Floats unwritten(size_t n) { return Floats(n, NAN); }
static int bits(float x) { int y; memcpy(&y, &x, 4); return y; }

// max |a − b| / max |b|.
template <typename A, typename B> static void close(const std::string &what, const A &a, const B &b, double bound) {
    double most = 1e-9, off = 0.0;
    bool whole = a.size() == b.size();
    for (size_t i = 0; whole && i < a.size(); i++) {
        if (!std::isfinite(a[i])) whole = false;
        most = std::max(most, std::abs((double)b[i])), off = std::max(off, std::abs((double)a[i] - (double)b[i]));
    }
    checks++;
    if (!whole || off > bound * most) {
        failures++;
        printf("FAILED %s: off by %g of %g%s\n", what.c_str(), off, most, whole ? "" : ", or not written whole");
    }
}

// Gradients g·∂f/∂x of a plain function by differences.
static Doubles slope(const Floats &x, const Floats &g, const std::function<Doubles(const Doubles &)> &f) {
    Doubles at(x.begin(), x.end()), found(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        double step = 1e-5, sum = 0.0;
        at[i] = x[i] + step;
        Doubles above = f(at);
        at[i] = x[i] - step;
        Doubles below = f(at);
        at[i] = x[i];
        for (size_t k = 0; k < g.size(); k++) sum += g[k] * (above[k] - below[k]);
        found[i] = sum / (2 * step);
    }
    return found;
}

// Rows of `width` that lie `apart`, from contiguous ones; NaN between.
static Floats spread(const Floats &x, int width, int apart) {
    Floats out = unwritten(x.size() / width * apart);
    for (size_t i = 0; i < x.size(); i++) out[i / width * apart + i % width] = x[i];
    return out;
}

static double act(int code, double x) {
    switch (code) {
    case 1: return x / (1 + exp(-x));
    case 2: return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case 3: return std::max(x, 0.0);
    case 4: return 1 / (1 + exp(-x));
    case 5: return tanh(x);
    case 6: return x > 20 ? x : log1p(exp(x));
    default: return x;
    }
}

static void test_elementwise() {
    using namespace elementwise;
    for (int width : {1, 3, 70}) {
        int rows = 5, n = rows * width, apart = width + 7, few = 2;
        Floats x = noise(n, -3, 3), z = noise(n, -3, 3), g = noise(n), xs = spread(x, width, apart), zs = spread(z, width, apart + 1);
        Floats gs = spread(g, width, apart + 2), y = unwritten(n), gx = unwritten(n), gz = unwritten(n);
        std::string name = " of width " + std::to_string(width);
        for (int code = 0; code < 7; code++) {
            std::string which = " " + std::to_string(code) + name;
            auto plain = [&](const Doubles &x) { Doubles y(n); for (int i = 0; i < n; i++) y[i] = act(code, x[i]); return y; };
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { activate_forward(&xs[0], nullptr, nullptr, &y[0], n, width, apart, 0, 0, code); });
            close("activate" + which, y, plain(Doubles(x.begin(), x.end())), 1e-6);
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { activate_backward(&xs[0], nullptr, &gs[0], &gx[0], n, width, apart, apart + 2, 0, code); });
            close("activate back" + which, gx, slope(x, g, plain), 1e-5);
            Floats b = noise(width);
            auto moved = [&](const Doubles &x) { Doubles y(n); for (int i = 0; i < n; i++) y[i] = act(code, x[i] + b[i % width]); return y; };
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { activate_forward(&xs[0], &b[0], &g[0], &y[0], n, width, apart, 1, 1, code); });
            Doubles added = moved(Doubles(x.begin(), x.end()));
            for (int i = 0; i < n; i++) added[i] += g[i];
            close("activate with a bias, added" + which, y, added, 1e-6);
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { activate_backward(&xs[0], &b[0], &gs[0], &gx[0], n, width, apart, apart + 2, 1, code); });
            close("activate with a bias back" + which, gx, slope(x, g, moved), 1e-5);
            auto gate = [&](const Doubles &x, const Doubles &z) { Doubles y(n); for (int i = 0; i < n; i++) y[i] = x[i] * act(code, z[i]); return y; };
            Doubles dx(x.begin(), x.end()), dz(z.begin(), z.end());
            host::launch({1, 1, 1}, {32, 1, 1}, [&] { gate_forward(&xs[0], &zs[0], &g[0], &y[0], n, width, apart, apart + 1, 1, code); });
            added = gate(dx, dz);
            for (int i = 0; i < n; i++) added[i] += g[i];
            close("gate, added" + which, y, added, 1e-6);
            host::launch({1, 1, 1}, {32, 1, 1}, [&] { gate_backward(&xs[0], &zs[0], &gs[0], &gx[0], &gz[0], n, width, apart, apart + 1, apart + 2, code); });
            close("gate back" + which, gx, slope(x, g, [&](const Doubles &x) { return gate(x, dz); }), 1e-5);
            close("gate back, its act" + which, gz, slope(z, g, [&](const Doubles &z) { return gate(dx, z); }), 1e-5);
        }
        Floats pair = noise(2 * n, -2, 2), pairs = spread(pair, 2 * width, 2 * width + 3), gpair = unwritten(2 * n);
        Floats b = noise(2 * width);
        for (int biased : {0, 1}) {
            auto glu = [&](const Doubles &p) {
                Doubles y(n);
                for (int i = 0; i < n; i++) {
                    int c = i % width, at = i / width * 2 * width + c;
                    y[i] = (p[at] + biased * b[c]) * act(4, p[at + width] + biased * b[width + c]);
                }
                return y;
            };
            host::launch({1, 1, 1}, {32, 1, 1}, [&] { glu_forward(&pairs[0], &b[0], &g[0], &y[0], n, width, 2 * width + 3, biased, biased, 0); });
            Doubles added = glu(Doubles(pair.begin(), pair.end()));
            for (int i = 0; i < n; i++) added[i] += biased * g[i];
            close("glu" + name, y, added, 1e-6);
            host::launch({1, 1, 1}, {32, 1, 1}, [&] { glu_backward(&pairs[0], &b[0], &gs[0], &gpair[0], n, width, 2 * width + 3, apart + 2, biased, 0); });
            close("glu back" + name, gpair, slope(pair, g, glu), 1e-5);
        }
        auto film = [&](const Doubles &x, const Doubles &p) { Doubles y(n); for (int i = 0; i < n; i++) { int at = i / width * 2 * width + i % width; y[i] = x[i] * (1 + p[at]) + p[at + width]; } return y; };
        Doubles dx(x.begin(), x.end()), dp(pair.begin(), pair.end());
        host::launch({1, 1, 1}, {32, 1, 1}, [&] { film_forward(&xs[0], &pairs[0], &g[0], &y[0], n, width, apart, 2 * width + 3, 1, 0); });
        Doubles moved = film(dx, dp);
        for (int i = 0; i < n; i++) moved[i] += g[i];
        close("film, added" + name, y, moved, 1e-6);
        host::launch({1, 1, 1}, {32, 1, 1}, [&] { film_backward(&xs[0], &pairs[0], &gs[0], &gx[0], &gpair[0], n, width, apart, 2 * width + 3, apart + 2, 0); });
        close("film back" + name, gx, slope(x, g, [&](const Doubles &x) { return film(x, dp); }), 1e-5);
        close("film back, its halves" + name, gpair, slope(pair, g, [&](const Doubles &p) { return film(dx, p); }), 1e-5);
        Floats whole = unwritten(rows * (width + few));
        Floats other = noise(rows * few);
        host::launch({1, 1, 1}, {32, 1, 1}, [&] { place_columns(&xs[0], &whole[0], n, width, apart, width + few); });
        host::launch({1, 1, 1}, {32, 1, 1}, [&] { place_columns(&other[0], &whole[width], rows * few, few, few, width + few); });
        Doubles joined;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < width; c++) joined.push_back(x[r * width + c]);
            for (int c = 0; c < few; c++) joined.push_back(other[r * few + c]);
        }
        close("columns side by side" + name, whole, joined, 0);
    }
}

static double dot(const Floats &a, const Floats &b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (double)a[i] * b[i];
    return sum;
}

// A linear move of (before, x) and its transpose.
static void check_moves(const std::string &name, const Floats &before, const Floats &x, const Floats &y, const Doubles &plain, const Floats &g, const Floats &gh, const Floats &gx) {
    close(name, y, plain, 1e-6);
    close(name + " back", Doubles{dot(gh, before) + dot(gx, x)}, Doubles{dot(g, y)}, 1e-5);
    for (float v : gh) checks++, failures += !std::isfinite(v);
    for (float v : gx) checks++, failures += !std::isfinite(v);
}

static void test_history() {
    using namespace history;
    int s = 2;
    for (int d : {1, 5, 33})
        for (int taps : {1, 4, 6})
            for (int t : {1, 3, 40}) {
                int h = taps - 1, n = s * t * d, apart = d + 3, shares = 3;
                std::string name = "conv " + std::to_string(d) + "×" + std::to_string(taps) + ", " + std::to_string(t) + " rows";
                Floats before = noise(s * h * d + 1), x = noise(n), xs = spread(x, d, apart), w = noise(d * taps), b = noise(d), g = noise(n);
                before.resize(s * h * d);
                auto ext = [&](int i, int e, int c) { return e < h ? before[(i * h + e) * d + c] : x[(i * t + e - h) * d + c]; };
                Doubles plain(n), gw(taps * d), gb(d);
                for (int i = 0; i < s; i++)
                    for (int k = 0; k < t; k++)
                        for (int c = 0; c < d; c++)
                            for (int j = 0; j < taps; j++) {
                                int at = (i * t + k) * d + c;
                                plain[at] += w[c * taps + j] * (double)ext(i, k + j, c);
                                gw[c * taps + j] += g[at] * (double)ext(i, k + j, c);
                                if (j == 0) gb[c] += g[at];
                            }
                Floats y = unwritten(n), gh = unwritten(s * h * d), gx = unwritten(n), part = unwritten(s * shares * (taps + 1) * d);
                const float *history = before.data();
                host::launch({2, 1, 1}, {32, 1, 1}, [&] { conv_forward(history, &xs[0], &w[0], &b[0], &y[0], n, t, taps, d, apart, 0); });
                host::launch({2, 1, 1}, {32, 1, 1}, [&] { conv_backward(&w[0], &g[0], gh.data(), &gx[0], s * (h + t) * d, t, taps, d); });
                check_moves(name, before, x, y, plain, g, gh, gx);
                host::launch({2, 1, 1}, {32, 1, 1}, [&] { conv_forward(history, &xs[0], &w[0], &b[0], &y[0], n, t, taps, d, apart, 1); });
                for (int i = 0; i < n; i++) plain[i] += b[i % d];
                close(name + " with a bias", y, plain, 1e-6);
                host::launch({(unsigned)(d + 31) / 32, (unsigned)s, (unsigned)shares}, {32, 1, 1}, [&] { conv_weights(history, &xs[0], &g[0], &part[0], t, taps, d, apart, shares); });
                Doubles sum((taps + 1) * d), expected = gw;
                expected.insert(expected.end(), gb.begin(), gb.end());
                for (size_t i = 0; i < part.size(); i++) sum[i % sum.size()] += part[i];
                close(name + ", its weights", sum, expected, 1e-5);
            }
    for (int w : {1, 3})
        for (int period : {1, 2, 5})
            for (int window : {1, 3, 7})
                for (int t : {1, 4, 23}) {
                    int h = window - 1, phase = t % period, start = period - phase - 1, rows = (t + phase) / period, apart = w + 2;
                    if (rows == 0) continue;
                    std::string name = "frame " + std::to_string(window) + " every " + std::to_string(period) + " of " + std::to_string(t);
                    Floats before = noise(s * h * w), x = noise(s * t * w), xs = spread(x, w, apart), g = noise(s * rows * window * w);
                    Doubles plain;
                    for (int i = 0; i < s; i++)
                        for (int r = 0; r < rows; r++)
                            for (int k = 0; k < window; k++)
                                for (int c = 0; c < w; c++) {
                                    int e = start + r * period + k;
                                    plain.push_back(e < h ? before[(i * h + e) * w + c] : x[(i * t + e - h) * w + c]);
                                }
                    Floats y = unwritten(plain.size()), gh = unwritten(before.size()), gx = unwritten(x.size());
                    host::launch({2, 1, 1}, {32, 1, 1}, [&] { frame_forward(before.data(), &xs[0], &y[0], y.size(), h, t, w, start, period, window, rows, apart); });
                    host::launch({2, 1, 1}, {32, 1, 1}, [&] { frame_backward(&g[0], gh.data(), &gx[0], s * (h + t) * w, h, t, w, start, period, window, rows); });
                    check_moves(name, before, x, y, plain, g, gh, gx);
                }
    for (int w : {1, 3})
        for (int period : {1, 4})
            for (int overlap : {1, 3})
                for (int shift : {1, 2})
                    for (int first : {0, 2})
                        for (int t : {0, 1, 6}) {
                            int h = shift + overlap - 1, wide = w * period * overlap, apart = wide + 1, rows = (t + 1) * period - first % period;
                            // Fine rows reach no further than the coarse rows that are there.
                            while (rows > 0 && (first % period + rows - 1) / period + overlap > h + t) rows--;
                            if (rows <= 0) continue;
                            int from = first % period;
                            std::string name = "overlap " + std::to_string(overlap) + " by " + std::to_string(period) + " of " + std::to_string(t);
                            Floats before = noise(s * h * wide), x = noise(s * t * wide), xs = spread(x, wide, apart), g = noise(s * rows * w);
                            xs.push_back(0.0f);
                            Doubles plain;
                            for (int i = 0; i < s; i++)
                                for (int r = 0; r < rows; r++)
                                    for (int c = 0; c < w; c++) {
                                        int n = from + r;
                                        double sum = 0;
                                        for (int k = 0; k < overlap; k++) {
                                            int e = n / period + overlap - 1 - k, column = (n % period + k * period) * w + c;
                                            sum += e < h ? before[(i * h + e) * wide + column] : x[(i * t + e - h) * wide + column];
                                        }
                                        plain.push_back(sum);
                                    }
                            Floats y = unwritten(plain.size()), gh = unwritten(before.size()), gx = unwritten(x.size());
                            host::launch({2, 1, 1}, {32, 1, 1}, [&] { overlap_forward(&before[0], &xs[0], &y[0], y.size(), h, t, w, from, period, overlap, rows, apart); });
                            host::launch({2, 1, 1}, {32, 1, 1}, [&] { overlap_backward(&g[0], &gh[0], gx.data(), s * (h + t) * wide, h, t, w, from, period, overlap, rows); });
                            check_moves(name, before, x, y, plain, g, gh, gx);
                        }
}

static void test_norm_and_sums() {
    for (int d : {1, 31, 70})
        for (int centred : {0, 1}) {
            int rows = 11;
            float eps = 1e-3f;
            std::string name = std::string(centred ? "layer" : "rms") + " norm of " + std::to_string(d);
            Floats x = noise(rows * d), w = noise(d), b = noise(d), g = noise(rows * d), y = unwritten(rows * d);
            auto plain = [&](const Doubles &x, const Doubles &w) {
                Doubles y(rows * d);
                for (int r = 0; r < rows; r++) {
                    double mean = 0, square = 0;
                    for (int c = 0; c < d && centred; c++) mean += x[r * d + c] / d;
                    for (int c = 0; c < d; c++) square += (x[r * d + c] - mean) * (x[r * d + c] - mean) / d;
                    for (int c = 0; c < d; c++) y[r * d + c] = (x[r * d + c] - mean) / sqrt(square + eps) * w[c] + (centred ? b[c] : 0);
                }
                return y;
            };
            Doubles dx(x.begin(), x.end()), dw(w.begin(), w.end());
            host::launch({2, 1, 1}, {32, 8, 1}, [&] { norm::norm_forward(&x[0], &w[0], &b[0], &y[0], rows, d, bits(eps), centred, centred); });
            close(name, y, plain(dx, dw), 1e-5);
            Floats gx = unwritten(rows * d), part = unwritten(2 * 2 * d);
            // So few blocks that each takes several rows.
            host::launch({2, 1, 1}, {32, 3, 1}, [&] { norm::norm_backward(&x[0], &w[0], &g[0], nullptr, &gx[0], &part[0], rows, d, bits(eps), centred, 0); });
            Doubles gradient = slope(x, g, [&](const Doubles &x) { return plain(x, dw); });
            if (d > 1 || !centred) close(name + " back", gx, gradient, 1e-4);
            Floats others = noise(rows * d), all = unwritten(rows * d);
            host::launch({2, 1, 1}, {32, 3, 1}, [&] { norm::norm_backward(&x[0], &w[0], &g[0], &others[0], &all[0], &part[0], rows, d, bits(eps), centred, 1); });
            for (int i = 0; i < rows * d; i++) gradient[i] = others[i] + (double)gx[i];
            close(name + " back, added", all, gradient, 1e-6);
            Doubles sum(2 * d), expected = slope(w, g, [&](const Doubles &w) { return plain(dx, w); });
            for (size_t i = 0; i < part.size(); i++) sum[i % (2 * d)] += part[i];
            for (int c = 0; c < d; c++) {
                double all = 0;
                for (int r = 0; r < rows; r++) all += g[r * d + c];
                expected.push_back(all);
            }
            close(name + ", its weights", sum, expected, 1e-4);
        }
    for (int width : {1, 40})
        for (int rows : {1, 9, 300})
            for (unsigned shares : {1u, 4u}) {
                Floats x = noise(rows * width), y = unwritten(shares * width);
                host::launch({(unsigned)(width + 31) / 32, shares, 1}, {32, 8, 1}, [&] { sums::sum_rows(&x[0], &y[0], rows, width); });
                Doubles sum(width), expected(width);
                for (size_t i = 0; i < y.size(); i++) sum[i % width] += y[i];
                for (size_t i = 0; i < x.size(); i++) expected[i % width] += x[i];
                close("sum of rows", sum, expected, 1e-5);
            }
}

// The spectral terms of one example by their definition: see src/train/loss.rs and src/train/loss/envelope.rs.
struct Weights {
    double convergence, log, magnitude, complex, envelope;
};
static double spectral_loss(const Doubles &x, const Doubles &y, const Floats &window, int hop, const Floats &band, int stretch, double floor,
                            double c, double asymmetry, const Weights &of, double *parts) {
    int n = window.size(), m = n / 2, len = x.size(), rows = len / hop + 1, bands = band.size() / 2;
    auto spectra = [&](const Doubles &x) {
        std::vector<Complex> all;
        for (int r = 0; r < rows; r++)
            for (int k = 0; k <= m; k++) {
                Complex sum = 0;
                for (int j = 0; j < n; j++) {
                    int t = r * hop - m + j;
                    if (t >= 0 && t < len) sum += x[t] * (double)window[j] * std::polar(1.0, -2 * M_PI * j * k / n);
                }
                all.push_back(sum);
            }
        return all;
    };
    auto a = spectra(x), b = spectra(y);
    double off = 0, size = 0, logs = 0, magnitudes = 0, complexes = 0, cells = a.size();
    for (size_t i = 0; i < a.size(); i++) {
        double r = sqrt(std::norm(a[i]) + floor), q = sqrt(std::norm(b[i]) + floor), d = pow(r, c) - pow(q, c);
        off += (r - q) * (r - q), size += q * q, logs += std::abs(log(r / q)), magnitudes += (d < 0 ? asymmetry : 1) * d * d;
        complexes += std::norm(pow(r, c - 1) * a[i] - pow(q, c - 1) * b[i]);
    }
    auto envelope = [&](const std::vector<Complex> &a, int j, int r) {
        double power = floor;
        for (int k = band[2 * j]; k < band[2 * j + 1]; k++) power += std::norm(a[r * (m + 1) + k]);
        return sqrt(power);
    };
    double lost = 0, loudest = 0;
    int step = std::max(stretch / 2, 1), stretches = (std::max(rows - stretch / 2, 1) + step - 1) / step, active = 0;
    Doubles power(stretches);
    for (int s = 0; s < stretches; s++) {
        for (int j = 0; j < bands; j++)
            for (int r = s * step; r < std::min(s * step + stretch, rows); r++) power[s] += pow(envelope(b, j, r), 2);
        loudest = std::max(loudest, power[s]);
    }
    for (int s = 0; s < stretches; s++) {
        if (power[s] <= std::max(1e-4 * loudest, floor * 2 * stretch * bands)) continue;
        active++;
        int from = s * step, to = std::min(from + stretch, rows);
        for (int j = 0; j < bands; j++) {
            double mx = 0, my = 0, xx = 0, yy = 0, xy = 0, count = to - from;
            for (int r = from; r < to; r++) mx += envelope(a, j, r) / count, my += envelope(b, j, r) / count;
            for (int r = from; r < to; r++) {
                double u = envelope(a, j, r) - mx, v = envelope(b, j, r) - my;
                xx += u * u, yy += v * v, xy += u * v;
            }
            lost += 1 - xy / (sqrt(xx + count * floor) * sqrt(yy + count * floor));
        }
    }
    double found[5] = {sqrt(off / size), logs / cells, magnitudes / cells, complexes / cells, active ? lost / active / bands : 0};
    if (parts) std::copy(found, found + 5, parts);
    return of.convergence * found[0] + of.log * found[1] + of.magnitude * found[2] + of.complex * found[3] + of.envelope * found[4];
}

static void test_loss() {
    const float floor = 1e-3f, c = 0.3f, asymmetry = 2.0f, share = 0.5f;
    const Weights sole[] = {{1, 0, 0, 0, 0}, {0, 1, 0, 0, 0}, {0, 0, 1, 0, 0}, {0, 0, 0, 1, 0}, {0, 0, 0, 0, 1}, {0.3, 0.2, 3, 1, 0.5}};
    // The third is not a power of two.
    const int sizes[][3] = {{4, 3, 1}, {8, 6, 60}, {6, 5, 47}, {32, 24, 150}, {1, 1, 9}};
    for (auto [m, hop, len] : sizes)
        for (const Weights &of : sole) {
            int examples = 2, rows = len / hop + 1, stretch = 4, step = 2, bands = of.envelope == 0 || m < 4 ? 0 : 2;
            int stretches = (std::max(rows - stretch / 2, 1) + step - 1) / step, count = examples * bands * rows;
            Floats x = noise(examples * len), y = noise(examples * len), window = noise(2 * m, 0.2f, 1.0f), band, band_of(m + 1, -1.0f), turns;
            // The second target swells, so that not all of its stretches are active.
            for (int t = 0; t < len; t++) y[len + t] *= pow((t + 1.0) / len, 6);
            if (bands) band = {1.0f, 3.0f, 3.0f, (float)m};
            for (int j = 0; j < bands; j++)
                for (int k = band[2 * j]; k < band[2 * j + 1]; k++) band_of[k] = j;
            for (int j = 0; j < 2 * m; j++) turns.push_back(cos(M_PI * j / m)), turns.push_back(sin(M_PI * j / m));
            Floats part = unwritten(examples * rows * 5), envelopes = unwritten(2 * count + 1), sums(examples * 5), each = unwritten(examples * stretches);
            Floats pull = unwritten(count + 1), of_bands = unwritten(examples * bands + 1), frames = unwritten(examples * rows * 2 * m);
            Floats before = noise(examples * len, -0.01f, 0.01f), grad = unwritten(examples * len), old = noise(examples * 6, 0.0f, 0.1f), values = unwritten(examples * 6);
            const float *ex = envelopes.data(), *ey = ex + count;
            Floats waveform = noise(examples * 2, 0.1f, 1.0f), shares = unwritten(examples);
            float cell = share / (rows * (m + 1));
            host::launch({(unsigned)rows, (unsigned)examples, 1}, {64, 1, 1}, [&] {
                loss::spectral_sums(&x[0], &y[0], &window[0], &turns[0], band.data(), &part[0], &envelopes[0], len, m, hop, bands, bits(c), bits(floor), bits(asymmetry));
            });
            for (int e = 0; e < examples; e++)
                for (int r = 0; r < rows; r++)
                    for (int i = 0; i < 5; i++) sums[e * 5 + i] += part[(e * rows + r) * 5 + i];
            if (bands) {
                host::launch({(unsigned)examples, 1, 1}, {64, 1, 1}, [&] { loss::envelope_active(ey, &each[0], rows, bands, stretch, stretches, bits(floor), bits(1e-4f)); });
                host::launch({(unsigned)(examples * bands), 1, 1}, {32, 1, 1}, [&] { loss::envelope_pull(ex, ey, &each[0], &pull[0], &of_bands[0], rows, bands, stretch, stretches, bits(floor)); });
            }
            host::launch({1, 1, 1}, {32, 1, 1}, [&] { loss::spectral_values(&sums[0], &of_bands[0], &old[0], &values[0], examples, bands, bits(share), bits(cell)); });
            float relative = of.envelope == 0 ? 0.0f : 0.3f, l1 = 0.4f, least = 0.01f;
            host::launch({1, 1, 1}, {32, 1, 1}, [&] {
                loss::difference_share(&waveform[0], &values[0], &shares[0], examples, bits(relative), bits(least), bits(l1), bits(of.convergence), bits(of.log),
                                       bits(of.magnitude), bits(of.complex));
            });
            for (int e = 0; e < examples; e++) {
                const float *v = &values[6 * e];
                double sum = l1 * waveform[2 * e] + of.convergence * v[0] + of.log * v[2] + of.magnitude * v[3] + of.complex * v[4];
                close("share of the differences", Doubles{shares[e]}, Doubles{relative ? relative / (least + sum) : 1.0}, 1e-5);
            }
            host::launch({(unsigned)rows, (unsigned)examples, 1}, {64, 1, 1}, [&] {
                loss::spectral_pull(&x[0], &y[0], &window[0], &turns[0], &sums[0], &shares[0], &band_of[0], ex, &pull[0], &frames[0], len, m, hop, bands, bits(c), bits(floor), bits(asymmetry),
                                    bits(of.convergence * share), bits(of.log * cell), bits(of.magnitude * 2 * c * cell), bits(of.complex * 2 * cell), bits(of.envelope * share));
            });
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { loss::add_frames(&frames[0], &before[0], &grad[0], examples * len, len, rows, m, hop); });
            std::string name = "spectra of " + std::to_string(2 * m) + " in " + std::to_string(len);
            for (int e = 0; e < examples; e++) {
                Doubles target(y.begin() + e * len, y.begin() + (e + 1) * len), at(x.begin() + e * len, x.begin() + (e + 1) * len), expected;
                double parts[5];
                Weights used = of;
                if (!bands) used.envelope = 0;
                spectral_loss(at, target, window, hop, band, stretch, floor, c, asymmetry, used, parts);
                const int place[] = {0, 2, 3, 4, 5};
                for (int i = 0; i < (bands ? 5 : 4); i++) close(name + ", a value", Doubles{values[6 * e + place[i]]}, Doubles{old[6 * e + place[i]] + share * parts[i]}, 1e-5);
                for (double *weight : {&used.convergence, &used.log, &used.magnitude, &used.complex}) *weight *= shares[e];
                auto along = [&](const Doubles &x) { return Doubles{share * spectral_loss(x, target, window, hop, band, stretch, floor, c, asymmetry, used, nullptr)}; };
                Floats own(x.begin() + e * len, x.begin() + (e + 1) * len), moved(grad.begin() + e * len, grad.begin() + (e + 1) * len);
                expected = slope(own, Floats{1.0f}, along);
                for (int t = 0; t < len; t++) expected[t] += before[e * len + t];
                close(name + ", their gradient", moved, expected, 1e-4);
            }
        }
    for (int len : {1, 77, 1000})
        for (int term : {0, 1}) {
            Floats x = noise(2 * len), y = noise(2 * len), grad = unwritten(2 * len), values = unwritten(4);
            float e = 1e-6f, l1 = term ? 0.0f : 0.7f, si_sdr = term ? 0.3f : 0.0f;
            host::launch({2, 1, 1}, {64, 1, 1}, [&] { loss::waveform_terms(&x[0], &y[0], &grad[0], &values[0], len, bits(l1), bits(si_sdr), bits(e)); });
            Floats before = grad, shares = noise(2, 0.5f, 2.0f);
            host::launch({2, 1, 1}, {32, 1, 1}, [&] { loss::l1_pull(&x[0], &y[0], &shares[0], &before[0], &grad[0], 2 * len, len, bits(l1)); });
            auto plain = [&](const Doubles &x) {
                Doubles found;
                for (int k = 0; k < 2; k++) {
                    double p = 0, s = 0, off = 0, far = 0;
                    for (int t = k * len; t < (k + 1) * len; t++) p += x[t] * y[t], s += (double)y[t] * y[t], far += std::abs(x[t] - y[t]) / len;
                    double alpha = p / (s + e * len);
                    for (int t = k * len; t < (k + 1) * len; t++) off += pow(x[t] - alpha * y[t], 2);
                    found.push_back(term ? 10 * log10((off + e * len) / (alpha * alpha * s + e * len)) : far);
                }
                return found;
            };
            float weight = term ? si_sdr : l1;
            std::string name = term ? "SI-SDR" : "L1";
            close(name, Doubles{values[term], values[2 + term]}, plain(Doubles(x.begin(), x.end())), 1e-5);
            // Of one sample the SI-SDR's gradient is what is left of nearly equal numbers.
            if (len > 1 || !term) close(name + ", its gradient", grad, slope(x, term ? Floats{weight, weight} : Floats{weight * shares[0], weight * shares[1]}, plain), 1e-4);
        }
}

static void test_flat() {
    Floats a = noise(70), b = noise(1), c = noise(300), to(512);
    flat::Parts parts = {{&a[0], &b[0], &c[0]}, {0, 128, 192}, {70, 1, 300}};
    host::launch({2, 3, 1}, {32, 1, 1}, [&] { flat::place_parts(parts, &to[0]); });
    Doubles expected(512);
    std::copy(a.begin(), a.end(), expected.begin()), expected[128] = b[0], std::copy(c.begin(), c.end(), expected.begin() + 192);
    close("parts side by side", to, expected, 0);
}

static void test_adamw() {
    int n = 1000, parts = 8;
    Floats g = noise(n), w = noise(n), m = noise(n), v = noise(n, 0, 1), ema = noise(n), rates = noise(n, 0, 1), decays(n);
    for (int i = 0; i < n; i++) decays[i] = i % 2;
    for (float size : {0.01f, 100.0f, NAN}) {
        Floats sum = g, part = unwritten(parts), w1 = unwritten(n), m1 = w1, v1 = w1, e1 = w1, norm = unwritten(1);
        for (float &x : sum) x *= size;
        float share = 0.25f, clip = 1.0f, b1 = 0.9f, b2 = 0.99f, eps = 1e-6f, decay = 0.1f, rate = 0.01f, bias1 = 0.19f, bias2 = 0.14f, keep = 0.9f;
        host::launch({(unsigned)parts, 1, 1}, {64, 1, 1}, [&] { optimiser::square_sums(&sum[0], &part[0], n); });
        host::launch({3, 1, 1}, {64, 1, 1}, [&] {
            optimiser::adamw(&sum[0], &part[0], &w[0], &m[0], &v[0], &ema[0], &rates[0], &decays[0], &w1[0], &m1[0], &v1[0], &e1[0], &norm[0], n, parts,
                             bits(share), bits(clip), bits(b1), bits(b2), bits(eps), bits(decay), bits(rate), bits(bias1), bits(bias2), bits(keep));
        });
        double square = 0;
        for (float x : sum) square += (double)x * x * share * share;
        double length = sqrt(square), scale = share * (length > clip ? clip / length : 1);
        Doubles dw(n), dm(n), dv(n), de(n);
        for (int i = 0; i < n; i++) {
            double x = sum[i] * scale, own = rate * rates[i];
            dm[i] = b1 * m[i] + (1 - b1) * x, dv[i] = b2 * v[i] + (1 - b2) * x * x;
            dw[i] = w[i] * (1 - own * decay * decays[i]) - own / bias1 * dm[i] / (sqrt(dv[i]) / bias2 + eps);
            de[i] = keep * ema[i] + (1 - keep) * dw[i];
            if (!std::isfinite(size)) dw[i] = w[i], dm[i] = m[i], dv[i] = v[i], de[i] = ema[i];
        }
        std::string name = "AdamW, gradient of size " + std::to_string(size);
        close(name + ", w", w1, dw, 1e-5), close(name + ", m", m1, dm, 1e-5), close(name + ", v", v1, dv, 1e-5), close(name + ", average", e1, de, 1e-5);
        if (std::isfinite(size)) close(name + ", norm", norm, Doubles{length}, 1e-5);
    }
}

static void test_cross_entropy() {
    for (int count : {1, 5, 100})
        for (int rows : {1, 13}) {
            Floats x = noise(rows * count, -6, 6), targets(rows), losses = unwritten(rows), grad = unwritten(rows * count), ones(rows, 0.125f);
            for (int r = 0; r < rows; r++) targets[r] = r * 7 % count;
            // A target far above the rest would leave a loss that is the difference of nearly equal numbers.
            for (int r = 0; r < rows; r++) x[r * count + r * 7 % count] = noise(1, -6, 0)[0];
            auto plain = [&](const Doubles &x) {
                Doubles y(rows);
                for (int r = 0; r < rows; r++) {
                    double sum = 0;
                    for (int c = 0; c < count; c++) sum += exp(x[r * count + c]);
                    y[r] = log(sum) - x[r * count + (int)targets[r]];
                }
                return y;
            };
            host::launch({2, 1, 1}, {32, 8, 1}, [&] { classes::cross_entropy(&x[0], &targets[0], &losses[0], &grad[0], rows, count, bits(0.125f)); });
            std::string name = "cross-entropy of " + std::to_string(count) + " classes";
            if (count > 1) close(name, losses, plain(Doubles(x.begin(), x.end())), 1e-5), close(name + " back", grad, slope(x, ones, plain), 1e-5);
            targets[0] = count;
            host::launch({2, 1, 1}, {32, 8, 1}, [&] { classes::cross_entropy(&x[0], &targets[0], &losses[0], &grad[0], rows, count, bits(0.125f)); });
            checks++, failures += !std::isnan(losses[0]);
            targets[0] = -1, grad = unwritten(rows * count);
            host::launch({2, 1, 1}, {32, 8, 1}, [&] { classes::cross_entropy(&x[0], &targets[0], &losses[0], &grad[0], rows, count, bits(0.125f)); });
            checks++, failures += losses[0] != 0 || std::any_of(&grad[0], &grad[0] + count, [](float g) { return g != 0; });
        }
}

static void test_embed() {
    for (int vocabulary : {1, 7, 256, 600})
        for (int rows : {1, 33, 300})
            for (int d : {1, 40}) {
                int shares = rows > 100 ? 3 : 1;
                Floats g = noise(rows * d), tokens(rows), part = unwritten(shares * vocabulary * d);
                for (int r = 0; r < rows; r++) tokens[r] = (r * 31 + r / 7) % vocabulary;
                Doubles want(vocabulary * d), got(vocabulary * d);
                for (int r = 0; r < rows; r++)
                    for (int c = 0; c < d; c++) want[(int)tokens[r] * d + c] += g[r * d + c];
                Index grid = {(unsigned)(d + 31) / 32, (unsigned)shares, (unsigned)(vocabulary + 255) / 256};
                host::launch(grid, {32, 8, 1}, [&] { embeds::embed_back(&g[0], &tokens[0], &part[0], rows, d, vocabulary); });
                for (size_t i = 0; i < part.size(); i++) got[i % got.size()] += part[i];
                close("embed back, " + std::to_string(vocabulary) + " tokens of " + std::to_string(d) + ", " + std::to_string(rows) + " rows", got, want, 1e-5);
            }
}

static void test_round() {
    Floats x = noise(777, -3, 3), got;
    std::vector<bf16> y(x.size());
    host::launch({2, 1, 1}, {64, 1, 1}, [&] { rounds::round_to_bf16(&x[0], &y[0], x.size()); });
    for (bf16 v : y) got.push_back(number(v));
    Doubles want;
    for (float v : x) {
        double ulp = std::ldexp(1.0, std::ilogb(v) - 7);
        want.push_back(ulp * std::nearbyint(v / ulp));
    }
    close("rounding to bf16", got, want, 0);
}

// Ā, B̄, C (rule 1, 2) or A (rule 0) of plain parameters: [3 or 1][R][d].
static Doubles plain_tables(const Doubles &a_log, const Doubles &a_imag, const Doubles &log_dt, const Doubles &c, int d, int n, bool complex, int rule) {
    int len = d * n * (complex ? 2 : 1);
    Doubles out((rule ? 3 : 1) * len);
    for (int ch = 0; ch < d; ch++)
        for (int k = 0; k < n; k++) {
            int i = ch * n + k;
            Complex a(-exp(a_log[i]), complex ? a_imag[i] : 0.0), table[3] = {a};
            if (rule) {
                double dt = exp(log_dt[ch]);
                table[0] = rule == 1 ? std::exp(dt * a) : (1.0 + dt * a / 2.0) / (1.0 - dt * a / 2.0);
                table[1] = rule == 1 ? (table[0] - 1.0) / a : dt / (1.0 - dt * a / 2.0);
                table[2] = complex ? Complex(c[2 * i], c[2 * i + 1]) : Complex(c[i]);
            }
            for (int t = 0; t < (rule ? 3 : 1); t++) {
                out[t * len + k * d + ch] = table[t].real();
                if (complex) out[t * len + (n + k) * d + ch] = table[t].imag();
            }
        }
    return out;
}

static void test_dropout() {
    auto mix = [](uint64_t z) {
        z += 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    };
    uint64_t key = 0xfedcba9876543210ull, first = (1ull << 45) + 3, position = 1ull << 33, bar = (uint64_t)(0.25 * 4294967296.0);
    auto part = [](uint64_t n, int i) { return (int)(n >> 22 * i & 0x3fffff); };
    for (auto [s, t, d] : {std::array<int, 3>{1, 1, 1}, {3, 7, 33}, {2, 65, 64}}) {
        Floats y = unwritten(s * t * d), expected;
        for (int i = 0; i < s; i++)
            for (int j = 0; j < t; j++)
                for (int c = 0; c < d; c++) expected.push_back(mix(mix(mix(key ^ (first + i)) ^ (position + j)) ^ c) >> 32 < bar ? 0 : 1 / 0.75f);
        host::launch({2, 1, 1}, {32, 8, 1}, [&] {
            drops::dropout_mask(&y[0], s * t, t, d, part(key, 0), part(key, 1), part(key, 2), part(first, 0), part(first, 1), part(first, 2), part(position, 0),
                                part(position, 1), part(position, 2), part(bar, 0), part(bar, 1), part(bar, 2), bits(1 / 0.75f));
        });
        close("dropout of " + std::to_string(s * t * d), y, expected, 0);
    }
}

static void test_tables() {
    for (int complex : {0, 1})
        for (int rule : {0, 1, 2})
            for (int d : {1, 37}) {
                int n = d == 1 ? 3 : 35, poles = d * n, numbers = poles * (complex ? 2 : 1), all = (rule ? 3 : 1) * numbers;
                std::string name = "tables of rule " + std::to_string(rule) + (complex ? ", complex" : ", real");
                Floats a_log = noise(poles), a_imag = noise(poles, 1, 9), log_dt = noise(d, -4, -1), c = noise(numbers), g = noise(all);
                Floats out = unwritten(all), ga = unwritten(poles), gi = unwritten(complex ? poles : 0), gdt = unwritten(rule ? d : 0), gc = unwritten(rule ? numbers : 0);
                Index grid = {(unsigned)(d + 3) / 4, 1, 1};
                host::launch(grid, {32, 4, 1}, [&] { tables::discretise_forward(&a_log[0], &a_imag[0], &log_dt[0], &c[0], &out[0], d, n, complex, rule); });
                Doubles wide[4] = {{a_log.begin(), a_log.end()}, {a_imag.begin(), a_imag.end()}, {log_dt.begin(), log_dt.end()}, {c.begin(), c.end()}};
                auto plain = [&](int which, const Doubles &x) {
                    const Doubles *of[4] = {&wide[0], &wide[1], &wide[2], &wide[3]};
                    of[which] = &x;
                    return plain_tables(*of[0], *of[1], *of[2], *of[3], d, n, complex, rule);
                };
                close(name, out, plain(0, wide[0]), 1e-6);
                host::launch(grid, {32, 4, 1}, [&] { tables::discretise_backward(&a_log[0], &a_imag[0], &log_dt[0], &g[0], &ga[0], gi.data(), gdt.data(), gc.data(), d, n, complex, rule); });
                close(name + ", A", ga, slope(a_log, g, [&](const Doubles &x) { return plain(0, x); }), 1e-5);
                if (complex) close(name + ", its angle", gi, slope(a_imag, g, [&](const Doubles &x) { return plain(1, x); }), 1e-5);
                if (rule) close(name + ", Δ", gdt, slope(log_dt, g, [&](const Doubles &x) { return plain(2, x); }), 1e-5);
                if (rule) close(name + ", C", gc, slope(c, g, [&](const Doubles &x) { return plain(3, x); }), 1e-5);
            }
}

// The recurrence and its gradients in f64, as on the page of src/exec/candle/scan/mod.rs.
struct Recurrence {
    int s, t, d, n;
    bool complex, selective;
    int r() const { return complex ? 2 * n : n; }
    int width() const { return selective ? 2 * (d + r()) : d; }
    int params() const { return ((selective ? 1 : 3) * r() + 1) * d; }

    void run(const Floats &rows, const Floats &p, const Floats &h0, const Floats &gy, const Floats &gh, Doubles &y, Doubles &h, Doubles &states, int chunk, Doubles &grows, Doubles &gp, Doubles &gh0) const {
        int R = r(), W = width();
        y.assign(s * t * d, 0), h.assign(s * R * d, 0), grows.assign(s * t * W, 0), gp.assign(params(), 0), gh0.assign(s * R * d, 0);
        int kept = 1 + (t - 1) / chunk;
        states.assign(s * kept * R * d, 0);
        double two = complex ? 2 : 1;
        auto pair = [&](const float *x, int re, int im) { return Complex(x[re], complex ? x[im] : 0.0f); };
        for (int i = 0; i < s; i++)
            for (int c = 0; c < d; c++) {
                double skip = p[params() - d + c];
                for (int k = 0; k < n; k++) {
                    int re = k * d + c, im = (n + k) * d + c;
                    std::vector<Complex> hs(t + 1), e(t), b(t), q(t);
                    Complex a = pair(&p[0], re, im);
                    hs[0] = pair(&h0[i * R * d], re, im);
                    for (int j = 0; j < t; j++) {
                        const float *row = &rows[(i * t + j) * W];
                        double u = row[c], dt = selective ? row[d + c] : 1;
                        if (selective) {
                            const float *bs = row + 2 * d, *cs = bs + R;
                            e[j] = std::exp(dt * a), b[j] = complex ? Complex(bs[2 * k], bs[2 * k + 1]) : Complex(bs[k]);
                            q[j] = complex ? Complex(cs[2 * k], cs[2 * k + 1]) : Complex(cs[k]);
                        } else {
                            e[j] = a, b[j] = pair(&p[R * d], re, im), q[j] = pair(&p[2 * R * d], re, im);
                        }
                        hs[j + 1] = e[j] * hs[j] + b[j] * (selective ? dt * u : u);
                        y[(i * t + j) * d + c] += two * (q[j] * hs[j + 1]).real() + (k == 0 ? skip * u : 0);
                    }
                    h[i * R * d + re] = hs[t].real();
                    if (complex) h[i * R * d + im] = hs[t].imag();
                    for (int at = 0; at < kept; at++) {
                        Complex kept_h = at == 0 ? hs[t] : hs[at * chunk];
                        states[(i * kept + at) * R * d + re] = kept_h.real();
                        if (complex) states[(i * kept + at) * R * d + im] = kept_h.imag();
                    }
                    Complex g = pair(&gh[i * R * d], re, im);
                    for (int j = t - 1; j >= 0; j--) {
                        const float *row = &rows[(i * t + j) * W];
                        double *grow = &grows[(i * t + j) * W], out = gy[(i * t + j) * d + c], u = row[c], dt = selective ? row[d + c] : 1, x = dt * u;
                        Complex gc = two * out * std::conj(hs[j + 1]);
                        g += two * out * std::conj(q[j]);
                        Complex gb = g * x, ge = g * std::conj(hs[j]);
                        double gx = (std::conj(g) * b[j]).real();
                        if (k == 0) grow[c] += skip * out, gp[params() - d + c] += u * out;
                        if (selective) {
                            double *gbs = grow + 2 * d, *gcs = gbs + R;
                            if (complex) gbs[2 * k] += gb.real(), gbs[2 * k + 1] += gb.imag(), gcs[2 * k] += gc.real(), gcs[2 * k + 1] += gc.imag();
                            else gbs[k] += gb.real(), gcs[k] += gc.real();
                            Complex by = ge * std::conj(e[j]);
                            grow[c] += gx * dt, grow[d + c] += gx * u + (by * std::conj(a)).real();
                            gp[re] += dt * by.real();
                            if (complex) gp[im] += dt * by.imag();
                        } else {
                            grow[c] += gx;
                            gp[re] += ge.real(), gp[R * d + re] += gb.real(), gp[2 * R * d + re] += gc.real();
                            if (complex) gp[im] += ge.imag(), gp[R * d + im] += gb.imag(), gp[2 * R * d + im] += gc.imag();
                        }
                        g *= std::conj(e[j]);
                    }
                    gh0[i * R * d + re] = g.real();
                    if (complex) gh0[i * R * d + im] = g.imag();
                }
            }
    }
};

#define BY_VARIANT(CALL_REAL, CALL_COMPLEX) (z.complex ? (void)(CALL_COMPLEX) : (void)(CALL_REAL))

// As src/exec/candle/cuda/scan.rs launches them, with `seg` rows a segment.
// Rows, outputs and their gradients are of type T: float, or bf16 for the real selective scan.
template <typename T> static std::vector<T> rounded(Floats &x) {
    std::vector<T> out(x.size());
    for (size_t i = 0; i < x.size(); i++) set(&out[i], x[i]), x[i] = number(out[i]);
    return out;
}
template <typename T> static Floats numbers_of(const std::vector<T> &x) {
    Floats out;
    for (T v : x) out.push_back(number(v));
    return out;
}

template <typename T> static void test_scan(Recurrence z, int seg) {
    constexpr bool half = std::is_same<T, bf16>::value;
    const double result = half ? 5e-3 : 1e-5;
    int R = z.r(), d = z.d, n = z.n, t = z.t, s = z.s, W = z.width(), chunk = 16, numbers = z.complex ? 2 : 1;
    int segs = (t + seg - 1) / seg, kept = 1 + (t - 1) / chunk, state = R * d;
    Floats rows = noise(s * t * W), p = noise(z.params()), h0 = noise(s * state), gy = noise(s * t * d), gh = noise(s * state);
    for (int i = 0; i < s * t; i++)
        for (int c = 0; c < d; c++) rows[i * W + d + c] = 0.01f + 0.2f * fabsf(rows[i * W + d + c]);
    for (int i = 0; i < state; i++) p[i] = i < n * d ? -0.1f - fabsf(p[i]) : 3 * p[i];
    std::vector<T> rows_given = rounded<T>(rows), gy_given = rounded<T>(gy);
    Doubles y, h, states, grows, gp, gh0;
    z.run(rows, p, h0, gy, gh, y, h, states, chunk, grows, gp, gh0);
    char text[160];
    snprintf(text, sizeof text, "scan%s %s, %d×%d, %d rows in segments of %d: ", half ? " in bf16" : "", z.complex ? "complex" : "real", d, n, t, seg);
    std::string name = text;

    auto walk = [&](int k, bool two) {
        int lanes = 1;
        while (lanes * k < n) lanes *= 2;
        int of_warp = 32 / lanes * (two ? 2 : 1), warps = std::min((d + of_warp - 1) / of_warp, 4);
        struct { int lanes; unsigned blocks, threads; } found = {lanes, (unsigned)((d + of_warp * warps - 1) / (of_warp * warps)), 32u * warps};
        return found;
    };
    unsigned S = s;
    Floats empty_y = unwritten(s * t * d), found_states = unwritten(s * kept * state), ends = unwritten(s * segs * state), sums = unwritten(s * segs * numbers * d);
    std::vector<T> found_y = rounded<T>(empty_y);
    const float *starts = &h0[0];
    Index carry = {(unsigned)(n * d + 127) / 128, S, 1};
    int k = z.complex ? 8 : n <= 4 ? 4 : 16;
    auto w = walk(k, false);
    if (segs > 1) {
        host::launch({w.blocks, (unsigned)segs - 1, S}, {w.threads, 1, 1}, [&] {
            const T *r = &rows_given[0];
            const float *q = &p[0];
            float *e = &ends[0], *m = &sums[0];
            if constexpr (half) {
                if (k == 4) scan_ends_real_selective_4_bf16(r, q, e, m, t, d, n, w.lanes, seg, segs);
                else scan_ends_real_selective_16_bf16(r, q, e, m, t, d, n, w.lanes, seg, segs);
            } else if (!z.complex && k == 4) scan_ends_real_selective_4(r, q, e, m, t, d, n, w.lanes, seg, segs);
            else BY_VARIANT(scan_ends_real_selective_16(r, q, e, m, t, d, n, w.lanes, seg, segs), scan_ends_complex_selective_8(r, q, e, m, t, d, n, w.lanes, seg, segs));
        });
        host::launch(carry, {128, 1, 1}, [&] {
            BY_VARIANT(scan_carry_real_selective(&p[0], &h0[0], &sums[0], &ends[0], t, d, n, seg, segs, state, 0), scan_carry_complex_selective(&p[0], &h0[0], &sums[0], &ends[0], t, d, n, seg, segs, state, 0));
        });
        starts = &ends[0];
    }
    bool two = !z.complex && k == 16 && w.lanes == 1 && d % 64 == 0;
    auto v = walk(k, two);
    host::launch({v.blocks, (unsigned)segs, S}, {v.threads, 1, 1}, [&] {
        const T *r = &rows_given[0];
        const float *q = &p[0];
        T *o = &found_y[0];
        float *m = &found_states[0];
        int ys = t * d, ss = kept * state;
        if constexpr (half) {
            if (two) scan_rows_real_selective_16x2_bf16(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss);
            else if (k == 4) scan_rows_real_selective_4_bf16(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss);
            else scan_rows_real_selective_16_bf16(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss);
        } else if (two) scan_rows_real_selective_16x2(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss);
        else if (!z.complex && k == 4) scan_rows_real_selective_4(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss);
        else BY_VARIANT(scan_rows_real_selective_16(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss), scan_rows_complex_selective_8(r, q, starts, o, m, t, d, n, v.lanes, seg, segs, ys, ss));
    });
    close(name + "y", numbers_of(found_y), y, result);
    close(name + "states", found_states, states, 1e-5);

    // Without segments.
    int piece = 16 / sizeof(T);
    if (!z.complex && n <= 16 && n % piece == 0 && d % piece == 0)
        for (unsigned warps : {3u, 4u, 6u, 12u}) {
            Floats empty = unwritten(s * t * d), found = unwritten(s * kept * state);
            std::vector<T> out = rounded<T>(empty);
            host::launch({(unsigned)(d + 15) / 16, 1, S}, {32 * warps, 1, 1}, [&] {
                if constexpr (half) scan_relay_real_selective_bf16(&rows_given[0], &p[0], &h0[0], &out[0], &found[0], t, d, n, t * d, kept * state);
                else scan_relay_real_selective(&rows_given[0], &p[0], &h0[0], &out[0], &found[0], t, d, n, t * d, kept * state);
            }, warps * (64 * 16 + 3 * 8 * 64 * sizeof(T)));
            close(name + "y, by turns of " + std::to_string(warps) + " warps", numbers_of(out), y, result);
            close(name + "states, by turns of " + std::to_string(warps) + " warps", found, states, 1e-5);
        }

    // Back from the states as they should be, so that errors do not hide each other.
    found_states.assign(states.begin(), states.end());
    int kb = z.complex ? 8 : n <= 4 ? 4 : 8;
    auto u = walk(kb, false);
    Floats begins = unwritten(s * segs * state), back_sums = unwritten(s * segs * numbers * d);
    if (segs > 1)
        host::launch({u.blocks, (unsigned)segs - 1, S}, {u.threads, 1, 1}, [&] {
            const T *r = &rows_given[0], *g = &gy_given[0];
            const float *q = &p[0];
            float *e = &begins[0], *m = &back_sums[0];
            if constexpr (half) {
                if (kb == 4) back_ends_real_selective_4_bf16(r, q, g, e, m, t, d, n, u.lanes, seg, segs, t * d);
                else back_ends_real_selective_8_bf16(r, q, g, e, m, t, d, n, u.lanes, seg, segs, t * d);
            } else if (!z.complex && kb == 4) back_ends_real_selective_4(r, q, g, e, m, t, d, n, u.lanes, seg, segs, t * d);
            else BY_VARIANT(back_ends_real_selective_8(r, q, g, e, m, t, d, n, u.lanes, seg, segs, t * d), back_ends_complex_selective_8(r, q, g, e, m, t, d, n, u.lanes, seg, segs, t * d));
        });
    host::launch(carry, {128, 1, 1}, [&] {
        BY_VARIANT(scan_carry_real_selective(&p[0], &gh[0], &back_sums[0], &begins[0], t, d, n, seg, segs, state, 1), scan_carry_complex_selective(&p[0], &gh[0], &back_sums[0], &begins[0], t, d, n, seg, segs, state, 1));
    });
    auto room = [&](int threads) { return 4 * (R * (3 * threads + 2 * 20 + threads + 1) + 16 * threads); };
    int threads = room(128) <= 48 << 10 ? 128 : room(64) <= 48 << 10 ? 64 : 32;
    threads = std::min(threads, (d + 31) / 32 * 32);
    int blocks = (d + threads - 1) / threads, count = s * t * 2 * R;
    Floats empty_grows = unwritten(rows.size()), mix = unwritten(blocks * count), found_gp = unwritten(s * segs * p.size()), found_gh0 = unwritten(h0.size());
    std::vector<T> found_grows = rounded<T>(empty_grows);
    host::launch({(unsigned)blocks, (unsigned)segs, S}, {(unsigned)threads, 1, 1}, [&] {
        const T *r = &rows_given[0], *g = &gy_given[0];
        const float *q = &p[0], *i = &h0[0], *m = &found_states[0], *e = &begins[0];
        T *o = &found_grows[0];
        float *x = &mix[0], *w = &found_gp[0], *f = &found_gh0[0];
        int ss = kept * state, ys = t * d;
        if constexpr (half) back_rows_real_selective_bf16(r, q, i, m, g, e, o, x, w, f, t, d, n, seg, segs, ss, ys);
        else BY_VARIANT(back_rows_real_selective(r, q, i, m, g, e, o, x, w, f, t, d, n, seg, segs, ss, ys), back_rows_complex_selective(r, q, i, m, g, e, o, x, w, f, t, d, n, seg, segs, ss, ys));
    }, room(threads));
    host::launch({2, 1, 1}, {64, 1, 1}, [&] {
        if constexpr (half) scan_mix_bf16(&mix[0], &found_grows[0], count, d, R, blocks);
        else scan_mix(&mix[0], &found_grows[0], count, d, R, blocks);
    });
    Doubles sum(p.size());
    for (size_t i = 0; i < found_gp.size(); i++) sum[i % p.size()] += found_gp[i];
    close(name + "gradient of rows", numbers_of(found_grows), grows, result);
    close(name + "gradient of parameters", sum, gp, 1e-5);
    close(name + "gradient of the first state", found_gh0, gh0, 1e-5);
}

// As src/exec/candle/cuda/invariant.rs launches them; with one share of the chunks, or two where there are many.
static void test_invariant(Recurrence z) {
    int R = z.r(), d = z.d, n = z.n, t = z.t, s = z.s, complex = z.complex, chunks = (t + 31) / 32, count = s * chunks, last = t - (chunks - 1) * 32, state = R * d;
    Floats u = noise(s * t * d), p = noise(z.params()), h0 = noise(s * state), gy = noise(s * t * d), gh = noise(s * state);
    for (int i = 0; i < state; i++) p[i] = 0.65f * p[i] + 0.03f;
    // Every second state forgets slowly.
    for (int k = 1; k < n; k += 2)
        for (int c = 0; c < d; c++) {
            int re = k * d + c, im = (n + k) * d + c;
            float size = 0.98f + 0.0199f * fabsf(p[re]), turn = 3 * p[re];
            p[re] = complex ? size * cosf(turn) : size, p[state + re] *= 0.1f;
            if (complex) p[im] = size * sinf(turn), p[state + im] *= 0.1f;
        }
    Doubles y, h, states, grows, gp, gh0;
    z.run(u, p, h0, gy, gh, y, h, states, 32, grows, gp, gh0);
    char text[160];
    snprintf(text, sizeof text, "invariant %s, %d×%d, %d rows: ", complex ? "complex" : "real", d, n, t);
    std::string name = text;
    auto summed = [](const Floats &part, size_t len) {
        Floats sum(len);
        for (size_t i = 0; i < part.size(); i++) sum[i % len] += part[i];
        return sum;
    };
    const unsigned shares = t > 1000 ? 2 : 1;
    unsigned S = s, channels = (d + 15) / 16, tiles = (R + 15) / 16;
    Index poles = {(unsigned)(n * d + 127) / 128, 1, 1};
    Floats in = unwritten(32 * state), out = unwritten(32 * state), decays = unwritten(4 * state), lag_shares = unwritten(n * 32 * d), found_y = unwritten(y.size()), found = unwritten(count * state);
    host::launch(poles, {128, 1, 1}, [&] { fixed::invariant_tables(&p[0], &in[0], &out[0], &decays[0], &lag_shares[0], d, n, complex, last); });
    Floats lags = summed(lag_shares, 32 * d);
    host::launch({channels, tiles, shares}, {32, 4, 1}, [&] { fixed::invariant_in(&u[0], &in[0], &found[0], t, d, R, chunks, count, 1); });
    host::launch({poles.x, S, 1}, {128, 1, 1}, [&] { fixed::invariant_carry(&decays[0], &h0[0], &found[0], d, n, complex, chunks); });
    host::launch({channels, 2, shares}, {32, 4, 1}, [&] { fixed::invariant_out(&u[0], &out[0], &lags[0], &found[0], &h0[0], &found_y[0], t, d, R, chunks, count); });
    close(name + "y", found_y, y, 1e-5);
    close(name + "states", found, states, 1e-5);

    found.assign(states.begin(), states.end());
    Floats g = unwritten(count * state), found_gh0 = unwritten(h0.size()), gdecays = unwritten(s * 2 * state), gu = unwritten(u.size());
    host::launch({channels, tiles, 1}, {32, 4, 1}, [&] { fixed::invariant_in(&gy[0], &out[0], &g[0], t, d, R, chunks, count, 0); });
    host::launch({poles.x, S, 1}, {128, 1, 1}, [&] { fixed::invariant_carry_back(&decays[0], &gh[0], &found[0], &h0[0], &g[0], &found_gh0[0], &gdecays[0], d, n, complex, chunks); });
    host::launch({channels, 2, 1}, {32, 4, 1}, [&] { fixed::invariant_out_back(&gy[0], &in[0], &lags[0], &g[0], &gu[0], t, d, R, chunks, count); });
    Floats gin = unwritten(shares * 32 * state), gout = unwritten(shares * 32 * state), glags = unwritten(4 * shares * 32 * d), found_gp = unwritten(p.size());
    Index grid = {channels, (unsigned)(R + 31) / 32, shares};
    host::launch(grid, {32, 8, 1}, [&] { fixed::invariant_sums(&u[0], &g[0], &g[0], &gin[0], t, d, R, chunks, count, 1); });
    host::launch(grid, {32, 8, 1}, [&] { fixed::invariant_sums(&gy[0], &found[0], &h0[0], &gout[0], t, d, R, chunks, count, 0); });
    host::launch({channels, shares, 1}, {32, 4, 1}, [&] { fixed::invariant_lags_back(&u[0], &gy[0], &glags[0], t, d, chunks, count); });
    Floats all_in = summed(gin, 32 * state), all_out = summed(gout, 32 * state), all_lags = summed(glags, 32 * d), all_decays = summed(gdecays, 2 * state);
    host::launch(poles, {128, 1, 1}, [&] { fixed::invariant_back(&p[0], &all_in[0], &all_out[0], &all_lags[0], &all_decays[0], &found_gp[0], d, n, complex, last); });
    close(name + "gradient of rows", gu, grows, 1e-5);
    close(name + "gradient of parameters", found_gp, gp, 1e-5);
    close(name + "gradient of the first state", found_gh0, gh0, 1e-5);
}

// With an argument fewer lengths, for ThreadSanitizer.
int main(int given, char **) {
    bool few = given > 1;
    test_elementwise();
    test_history();
    test_norm_and_sums();
    test_loss();
    test_flat();
    test_adamw();
    test_cross_entropy();
    test_embed();
    test_round();
    test_tables();
    test_dropout();
    for (int complex : {0, 1})
        for (auto [d, n] : {std::pair<int, int>{1, 1}, {33, 3}, {70, 16}, {5, 20}, {16, 40}})
            for (int t : few ? std::vector{70} : std::vector{1, 31, 32, 70, d == 33 ? 4200 : 300}) test_invariant({t > 1000 ? 1 : 3, t, d, n, complex != 0, false});
    for (int complex : {0, 1})
        for (auto [d, n] : {std::pair<int, int>{1, 1}, {33, 3}, {70, 16}, {5, 20}, {64, 16}, {24, 8}, {20, 12}, {3, 40}, {130, 2}})
            for (int t : few ? std::vector{d == 24 ? 210 : 70} : std::vector{1, 31, 70, d == 24 ? 210 : 33})
                for (int seg : few ? std::vector{32} : std::vector{32, 96}) {
                    test_scan<float>({2, t, d, n, complex != 0, true}, seg);
                    if (!complex) test_scan<bf16>({2, t, d, n, false, true}, seg);
                }
    printf("kernels on the host: %d checks, %d failed\n", checks, failures);
    return failures != 0;
}
