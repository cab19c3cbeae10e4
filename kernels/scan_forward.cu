// Forward of the scan: segments from zero, the states in which they begin, outputs. See scan.cuh.
#include "scan.cuh"

// Makes of the segments' own last states `ends` [S, G, R, d] the states in which they begin, one segment after the other:
// H ← initial;  start_g = H;  H ← ē_g·H + end_g,  where ē_g is the decay over all rows of the segment, 2^(A·ΣΔ).
// `back` goes from the last segment, which may be shorter, to the first, with conjugates. Grid: a thread a state of a stream.
template <bool COMPLEX>
__device__ static void carry(const float *params, const float *initial, float *ends, const float *sums, int t, int d, int n,
                             int seg, int segs, int initial_stride, int back) {
    const int BATCH = 16, NUMBERS = COMPLEX ? 2 : 1;
    Sizes z = sizes<COMPLEX>(t, d, n, seg, segs);
    int at = blockIdx.x * blockDim.x + threadIdx.x, c = at % d, m = at / d;
    if (m >= n) return;
    long s = blockIdx.y;
    ends += s * segs * z.state;
    sums += s * segs * NUMBERS * d;
    Exponent a = exponent<COMPLEX>(get<COMPLEX>(params, z, m, c));
    Pair h = get<COMPLEX>(initial + s * initial_stride, z, m, c);
    for (int i = 0; i < segs; i += BATCH) {
        Pair own[BATCH], by[BATCH];
#pragma unroll
        for (int p = 0; p < BATCH; p++) {
            int g = back ? segs - 1 - i - p : i + p;
            bool there = i + p < segs - 1;
            own[p] = there ? get<COMPLEX>(ends + g * z.state, z, m, c) : Pair{0.0f, 0.0f};
            const float *sum = sums + g * NUMBERS * d + c;
            by[p] = there ? decay<COMPLEX>(a, sum[0], COMPLEX ? sum[d] : 0.0f) : Pair{1.0f, 0.0f};
        }
#pragma unroll
        for (int p = 0; p < BATCH; p++) {
            int g = back ? segs - 1 - i - p : i + p;
            if (i + p >= segs) break;
            put<COMPLEX>(ends + g * z.state, z, m, c, h);
            Pair moved = back ? step_back<COMPLEX>(by[p], h) : step<COMPLEX>(by[p], h, {0.0f, 0.0f}, 0.0f);
            h = {flush(moved.re + own[p].re), flush(moved.im + own[p].im)};
        }
    }
}

#define CARRY(NAME, COMPLEX)                                                                                         \
    extern "C" __global__ void scan_carry_##NAME(const float *params, const float *initial, const float *sums, float *ends,     \
                                                 int t, int d, int n, int seg, int segs, int initial_stride, int back) {        \
        carry<COMPLEX>(params, initial, ends, sums, t, d, n, seg, segs, initial_stride, back);                       \
    }

// Blocks that a multiprocessor is to hold: what leaves a lane enough registers.
#define WALK(PASS_NAME, PASS, NAME, IN, COMPLEX, K, CC, RESIDENT, GIVEN, RUN)                                        \
    extern "C" __global__ void __launch_bounds__(128, RESIDENT) PASS_NAME##_##NAME GIVEN {                                      \
        Walk<IN, COMPLEX, K, CC, PASS> walk;                                                                         \
        walk.z = sizes<COMPLEX>(t, d, n, seg, segs);                                                                 \
        walk.run RUN;                                                                                                           \
    }

#define SCAN_ENDS(NAME, IN, COMPLEX, K, RESIDENT)                                                                    \
    WALK(scan_ends, ENDS, NAME, IN, COMPLEX, K, 1, RESIDENT,                                                         \
         (const IN *rows, const float *params, float *ends, float *sums, int t, int d, int n, int lanes, int seg, int segs),    \
         (rows, rows, params, params, ends, sums, (IN *)0, (float *)0, 0, 0, 0, lanes))

#define SCAN_ROWS(NAME, IN, COMPLEX, K, CC, RESIDENT)                                                                \
    WALK(scan_rows, ROWS, NAME, IN, COMPLEX, K, CC, RESIDENT,                                                        \
         (const IN *rows, const float *params, const float *starts, IN *y, float *states, int t, int d, int n, int lanes,       \
          int seg, int segs, int y_stride, int states_stride),                                                                  \
         (rows, rows, params, starts, (float *)0, (float *)0, y, states, y_stride, states_stride, 0, lanes))

#define BACK_ENDS(NAME, IN, COMPLEX, K, RESIDENT)                                                                    \
    WALK(back_ends, BACK, NAME, IN, COMPLEX, K, 1, RESIDENT,                                                         \
         (const IN *rows, const float *params, const IN *grad, float *ends, float *sums, int t, int d, int n, int lanes,        \
          int seg, int segs, int grad_stride),                                                                                  \
         (rows, grad, params, params, ends, sums, (IN *)0, (float *)0, 0, 0, grad_stride, lanes))

CARRY(real_selective, false)
CARRY(complex_selective, true)

// NAME_K or NAME_KxCC: K states a lane, CC channels.
SCAN_ENDS(complex_selective_8, float, true, 8, 4)
SCAN_ENDS(real_selective_4, float, false, 4, 6)
SCAN_ENDS(real_selective_16, float, false, 16, 6)
SCAN_ENDS(real_selective_4_bf16, bf16, false, 4, 6)
SCAN_ENDS(real_selective_16_bf16, bf16, false, 16, 6)

SCAN_ROWS(complex_selective_8, float, true, 8, 1, 4)
SCAN_ROWS(real_selective_4, float, false, 4, 1, 4)
SCAN_ROWS(real_selective_16, float, false, 16, 1, 4)
SCAN_ROWS(real_selective_16x2, float, false, 16, 2, 3)
SCAN_ROWS(real_selective_4_bf16, bf16, false, 4, 1, 4)
SCAN_ROWS(real_selective_16_bf16, bf16, false, 16, 1, 4)
SCAN_ROWS(real_selective_16x2_bf16, bf16, false, 16, 2, 3)

BACK_ENDS(complex_selective_8, float, true, 8, 4)
BACK_ENDS(real_selective_4, float, false, 4, 6)
BACK_ENDS(real_selective_8, float, false, 8, 6)
BACK_ENDS(real_selective_4_bf16, bf16, false, 4, 6)
BACK_ENDS(real_selective_8_bf16, bf16, false, 8, 6)
