// A GPU's blocks on the host: as much of CUDA as the kernels here use, so that they run, and are tested, without one.
//
// A block's threads are coroutines (ucontext) that hand over to the next at each barrier and exchange. Blocks run one after the
// other, so a block's shared memory is a static variable. Slow, and exact in what matters: which thread reads and writes what.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct uint2 {
    unsigned x, y;
};

namespace host {

// Threads that wait for each other: a block's, or a warp's.
struct Group {
    int live = 0, arrived = 0;
    unsigned round = 0;
};

// A copy that is under way until its group is waited for.
struct Copy {
    char *to;
    std::vector<char> bytes;
};

struct Thread {
    ucontext_t context;
    std::vector<std::vector<Copy>> copies;
    std::vector<char> stack;
    Index index;
    Group *warp;
    double *slots;
    int lane;
    bool done;
};

inline Thread *now;
inline ucontext_t scheduler;
inline Group block;
inline Index blocks, threads, at;
inline const std::function<void()> *kernel;
// What a launch may ask for at most.
alignas(16) inline float4 dynamic[(227 << 10) / 16];

// Barriers of two warps, of which the one waits and the other does not.
inline Group turns[16];

inline void hand_over() { swapcontext(&now->context, &scheduler); }

inline void arrive(Group &group) {
    if (++group.arrived < group.live) return;
    group.arrived = 0;
    group.round++;
}

inline void wait(Group &group) {
    unsigned round = group.round;
    arrive(group);
    while (group.round == round) hand_over();
}

inline void leave(Group &group) {
    group.live--;
    if (group.live > 0 && group.arrived == group.live) {
        group.arrived = 0;
        group.round++;
    }
}

inline void run_thread() {
    (*kernel)();
    leave(*now->warp);
    leave(block);
    now->done = true;
    hand_over();
}

// Another lane's value.
template <typename T> T exchange(T value, int from) {
    memcpy(&now->slots[now->lane], &value, sizeof(T));
    wait(*now->warp);
    T got = value;
    if (from >= 0 && from < 32) memcpy(&got, &now->slots[from], sizeof(T));
    wait(*now->warp);
    return got;
}

inline void run_block() {
    int count = threads.x * threads.y * threads.z;
    static std::vector<Thread> all;
    if ((int)all.size() < count) all.resize(count);
    std::vector<Group> warps((count + 31) / 32);
    std::vector<double> slots(warps.size() * 32);
    block = Group();
    for (Group &turn : turns) turn = {64};
    for (int i = 0; i < count; i++) {
        Thread &t = all[i];
        if (t.stack.empty()) t.stack.resize(128 << 10);
        t.index = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
        t.lane = i % 32, t.warp = &warps[i / 32], t.slots = &slots[i / 32 * 32], t.done = false;
        t.warp->live++, block.live++;
        t.copies.assign(1, {});
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.data();
        t.context.uc_stack.ss_size = t.stack.size();
        t.context.uc_link = nullptr;
        makecontext(&t.context, run_thread, 0);
    }
    for (int left = count; left > 0;) {
        left = 0;
        for (int i = 0; i < count; i++)
            if (!all[i].done) {
                now = &all[i];
                swapcontext(&scheduler, &now->context);
                left += !all[i].done;
            }
    }
}

// Runs a kernel: launch({blocks}, {threads}, [&] { kernel(arguments); }). The dynamic shared memory, `shared` bytes, is full of NaN before
// each block; what lies beyond must be so afterwards.
inline void launch(Index grid, Index size, const std::function<void()> &call, size_t shared = sizeof dynamic) {
    blocks = grid, threads = size, kernel = &call;
    for (at.z = 0; at.z < grid.z; at.z++)
        for (at.y = 0; at.y < grid.y; at.y++)
            for (at.x = 0; at.x < grid.x; at.x++) {
                memset(dynamic, 0xff, sizeof dynamic);
                run_block();
                const char *all = (const char *)dynamic;
                if (std::any_of(all + shared, all + sizeof dynamic, [](char c) { return c != '\xff'; })) {
                    printf("a block wrote beyond its %zu bytes of shared memory\n", shared);
                    exit(1);
                }
            }
}

}  // namespace host

#define threadIdx (host::now->index)
#define blockIdx (host::at)
#define blockDim (host::threads)
#define gridDim (host::blocks)

inline void __syncthreads() { host::wait(host::block); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(*host::now->warp); }
template <typename T> T __shfl_sync(unsigned, T v, int from) { return host::exchange(v, from); }
template <typename T> T __shfl_xor_sync(unsigned, T v, int by) { return host::exchange(v, host::now->lane ^ by); }
template <typename T> T __shfl_down_sync(unsigned, T v, int by) { return host::exchange(v, host::now->lane + by); }

inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline void sincospif(float x, float *s, float *c) {
    double turn = 3.14159265358979323846 * x;
    *s = (float)std::sin(turn), *c = (float)std::cos(turn);
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
using std::isfinite;

// device.cuh
#define DYNAMIC_SHARED float4 *shared = host::dynamic
inline float exp2_of(float x) { return std::exp2(x); }
// A copy comes when its group is waited for.
namespace host {
inline void send(void *to, const void *from, size_t bytes, size_t all) {
    auto at = [&](const void *x) { return (uintptr_t)x % all; };
    if (at(to) || (bytes && at(from))) printf("a copy of %zu bytes from or to an odd place\n", all), exit(1);
    Copy copy = {(char *)to, std::vector<char>(all)};
    memcpy(copy.bytes.data(), from, bytes);
    now->copies.back().push_back(copy);
}
inline void arrive_but(size_t pending) {
    auto &groups = now->copies;
    // The last is not sent yet.
    while (groups.size() > pending + 1) {
        for (const Copy &copy : groups[0]) memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
        groups.erase(groups.begin());
    }
}
}  // namespace host
inline void copy_ahead(void *to, const void *from) { host::send(to, from, 4, 4); }
inline void copy_sixteen(void *to, const void *from, int bytes = 16) { host::send(to, from, bytes, 16); }
inline void ask_for(const void *) {}
inline void copies_sent() { host::now->copies.push_back({}); }
template <int N> void copies_there_but() { host::arrive_but(N); }
inline void turn_wait(int barrier) { host::wait(host::turns[barrier]); }
inline void turn_over(int barrier) { host::arrive(host::turns[barrier]); }
template <typename T> T *counted_from(T *x) { return x; }
template <typename T> void made(T &) {}
