// Rows of the real selective scan, 16 states or fewer, where streams and channels alone fill the chip: no segments, so that each decay
// is computed once. See scan.cuh.
//
// A block has 16 channels of a stream. Its warps take eight rows each, in turn: what the rows multiply the state by, and add to it, is made
// beforehand, all at once; then a warp waits until the one before it hands it the state, goes through its rows, hands the state on,
// and makes the outputs of the states that it has kept. What follows one after the other is no more than eight multiply-adds and
// a handing over. A lane (g, j) = (lane / 4, lane % 4) has the states 4j to 4j + 3 of the channels 2g and 2g + 1.
#include "scan.cuh"

#define RELAY_ROWS 8
#define RELAY_CHANNELS 16
#define RELAY_STATES 16
// Tiles of rows that a warp has: the one it is at, and those under way.
#define RELAY_TILES 3

// Grid: 16 channels each, 1, streams. Shared memory: 64·16 bytes a warp, and its tiles of u, Δ, B and C, 64 numbers a row.
template <typename In>
__device__ static void relay(const In *all, const float *params, const float *h0, In *y, float *states, Sizes z, long y_stride, long states_stride) {
    const int R = RELAY_ROWS, K = 4, WIDE = 2 * RELAY_CHANNELS + 2 * RELAY_STATES;
    DYNAMIC_SHARED;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, g = lane / 4, j = lane % 4;
    int chunks = (z.t + R - 1) / R, c0 = blockIdx.x * RELAY_CHANNELS, c = c0 + 2 * g;
    long s = blockIdx.z;
    bool channels = c < z.d, mine = channels && K * j < z.n;
    if (warp >= chunks) return;
    // Where a warp is handed the state, two times sixteen bytes a lane. It is written again when the turn has gone all the way round.
    int given_at = warp * 64 + lane, give_at = warp + 1 == warps ? lane : given_at + 64;
    int turn = 1 + warp, next_turn = warp + 1 == warps ? 1 : turn + 1;
    In *tiles = (In *)(shared + warps * 64) + warp * RELAY_TILES * R * WIDE;

    float a[K][2], h[K][2], skip[2];
#pragma unroll
    for (int m = 0; m < 2; m++) {
        skip[m] = channels ? params[z.state + c + m] : 0.0f;
#pragma unroll
        for (int k = 0; k < K; k++) {
            a[k][m] = get<false>(params, z, K * j + k, c + m).re * LOG2E;
            h[k][m] = warp == 0 ? get<false>(h0 + s * z.state, z, K * j + k, c + m).re : 0.0f;
        }
    }

    // A lane copies, of every few rows, sixteen bytes of one of u, Δ, B and C; zeros where there is no row, channel or state.
    const int PIECE = 16 / sizeof(In), PIECES = WIDE / PIECE, ROWS_APART = 32 / PIECES;
    int v = lane % PIECES * PIECE, part = v / 16, in = v % 16, row = warp * R + lane / PIECES, step = warps * R;
    int limit = (part < 2 ? c0 + in < z.d : in < z.n) ? z.t : 0;
    const In *source = all + (s * z.t + row) * z.width + (part < 2 ? part * z.d + c0 : 2 * z.d + (part - 2) * z.n) + in;
    In *target = tiles + lane / PIECES * WIDE + v;
    auto send = [&](int to) {
#pragma unroll
        for (int q = 0; q < R / ROWS_APART; q++)
            copy_sixteen(target + (to * R + q * ROWS_APART) * WIDE, source + q * ROWS_APART * z.width, row + q * ROWS_APART < limit ? 16 : 0);
        row += step;
        source += (long)step * z.width;
        copies_sent();
    };
    send(0);
    send(1);

    // 0, which the compiler doesn't know.
    unsigned nothing = z.t >> 31;
    In *out = y + s * y_stride + (long)(warp * R + j) * z.d + c;
    float *kept = states + s * states_stride + K * j * z.d + c;
    for (int i = warp, at = 0; i < chunks; i += warps, at = at == RELAY_TILES - 1 ? 0 : at + 1) {
        __syncwarp();
        send(at == 0 ? RELAY_TILES - 1 : at - 1);
        copies_there_but<2>();
        __syncwarp();
        const In *tile = tiles + at * R * WIDE;
        // The decays, which become the states, and what is added. Each row asks for nothing of the one before, or all exponentials would
        // come in a row at the end, where each takes the warp eight cycles: between them there is time for the products.
        float e[R][K][2], x[R][K][2];
#pragma unroll
        for (int r = 0; r < R; r++) {
            float u[2], dt[2], b[K];
            two(u, tile + r * WIDE + 2 * g);
            two(dt, tile + r * WIDE + 16 + 2 * g);
            four(b, tile + r * WIDE + 32 + K * j);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                float by = dt[m] * u[m], zero = r == 0 ? 0.0f : __uint_as_float(__float_as_uint(e[r - 1][K - 1][m]) & nothing);
#pragma unroll
                for (int k = 0; k < K; k++) e[r][k][m] = exp2_of(fmaf(dt[m], a[k][m], zero)), x[r][k][m] = fmaf(b[k], by, zero);
            }
        }
        // All of it before the turn comes: on what follows, the next warp waits.
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int k = 0; k < K; k++)
#pragma unroll
                for (int m = 0; m < 2; m++) made(e[r][k][m]), made(x[r][k][m]);
        // Nor are these computed from then on.
        made(given_at), made(give_at), made(turn), made(next_turn);
        if (i > 0) {
            // Never a second time; a loop, so that nothing is moved across it.
#pragma unroll 1
            do turn_wait(turn);
            while (z.t == 0);
#pragma unroll
            for (int k = 0; k < K; k += 2) {
                float4 from = shared[given_at + k * 16];
                h[k][0] = from.x, h[k][1] = from.y, h[k + 1][0] = from.z, h[k + 1][1] = from.w;
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int k = 0; k < K; k++)
#pragma unroll
                for (int m = 0; m < 2; m++) h[k][m] = e[r][k][m] = fmaf(e[r][k][m], h[k][m], x[r][k][m]);
        if (i + 1 < chunks) {
#pragma unroll
            for (int k = 0; k < K; k += 2) shared[give_at + k * 16] = {h[k][0], h[k][1], h[k + 1][0], h[k + 1][1]};
            turn_over(next_turn);
        }
        int next = (i + 1) * R;
        if (mine && (next % CHUNK == 0 || next >= z.t)) {
            float *table = kept + (next < z.t ? next / CHUNK * z.state : 0);
#pragma unroll
            for (int k = 0; k < K; k++) set_two(table + k * z.d, flush(h[k][0]), flush(h[k][1]));
        }
#pragma unroll
        for (int r0 = 0; r0 < R; r0 += 4) {
            float p[2][4], u[2];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                float q[K];
                four(q, tile + (r0 + r) * WIDE + 32 + RELAY_STATES + K * j);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    p[m][r] = q[0] * e[r0 + r][0][m];
#pragma unroll
                    for (int k = 1; k < K; k++) p[m][r] = fmaf(q[k], e[r0 + r][k][m], p[m][r]);
                }
            }
            // Of four rows a lane keeps the j-th.
            two(u, tile + (r0 + j) * WIDE + 2 * g);
#pragma unroll
            for (int m = 0; m < 2; m++) p[m][0] = fmaf(skip[m], u[m], halves<2>(halves<1>(p[m][0], p[m][1]), halves<1>(p[m][2], p[m][3])));
            if (channels && i * R + r0 + j < z.t) set_two(out + r0 * z.d, p[0][0], p[1][0]);
        }
        out += step * z.d;
    }
}

// At most 12 warps a block, and a multiprocessor.
#define RELAY(NAME, IN)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                                       \
        scan_relay_##NAME(const IN *rows, const float *params, const float *h0, IN *y, float *states, int t, int d, int n,     \
                          int y_stride, int states_stride) {                                                                   \
        relay<IN>(rows, params, h0, y, states, sizes<false>(t, d, n, t, 1), y_stride, states_stride);                          \
    }

RELAY(real_selective, float)
RELAY(real_selective_bf16, bf16)
