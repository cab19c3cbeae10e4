// A GPU's blocks on the host: as much of CUDA as the kernels here use, so that they run, and are tested, without one.
//
// A block's threads are coroutines (ucontext) that hand over to the next at each barrier and exchange. Blocks run one after the
// other, so a block's shared memory is a static variable. Slow, and exact in what matters: which thread reads and writes what.
//
// With -fsanitize=thread each coroutine is a thread to ThreadSanitizer, and what it is told of are the barriers alone: two accesses to
// shared memory that no barriers put in order, over however many threads, are a race. Exchanges order nothing.
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

#ifdef __SANITIZE_THREAD__
extern "C" {
void *__tsan_create_fiber(unsigned);
void *__tsan_get_current_fiber();
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
void __tsan_write_range(void *, unsigned long);
}
// What runs the threads, and is none of theirs.
#define UNSEEN __attribute__((no_sanitize_thread, noinline))
#else
inline void *__tsan_create_fiber(unsigned) { return nullptr; }
inline void *__tsan_get_current_fiber() { return nullptr; }
inline void __tsan_switch_to_fiber(void *, unsigned) {}
inline void __tsan_acquire(void *) {}
inline void __tsan_release(void *) {}
inline void __tsan_write_range(void *, unsigned long) {}
#define UNSEEN
#endif

namespace host {

// Threads that wait for each other: a block's, or a warp's. `order` is what ThreadSanitizer knows a round by.
struct Group {
    int live = 0, arrived = 0;
    unsigned round = 0;
    uint64_t order[2] = {0, 0};
};

// A copy that is under way until its group is waited for.
struct Copy {
    char *to;
    std::vector<char> bytes;
};

struct Thread {
    ucontext_t context;
    void *fiber = nullptr;
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
inline void *scheduler_fiber;
inline uint64_t begun, ended;
inline Group block;
inline Index blocks, threads, at;
inline const std::function<void()> *kernel;
// What a launch may ask for at most.
alignas(16) inline float4 dynamic[(227 << 10) / 16];

// Barriers of two warps, of which the one waits and the other does not.
inline Group turns[16];

UNSEEN inline Thread *here() { return now; }

UNSEEN inline void hand_over() {
    // 1: what was done before the switch is not put in order with what comes after.
    __tsan_switch_to_fiber(scheduler_fiber, 1);
    swapcontext(&now->context, &scheduler);
}

UNSEEN inline void arrive(Group &group, bool orders = true) {
    if (orders) __tsan_release(&group.order[group.round % 2]);
    if (++group.arrived < group.live) return;
    group.arrived = 0;
    group.round++;
}

UNSEEN inline void wait(Group &group, bool orders = true) {
    unsigned round = group.round;
    arrive(group, orders);
    while (group.round == round) hand_over();
    if (orders) __tsan_acquire(&group.order[round % 2]);
}

UNSEEN inline void leave(Group &group) {
    group.live--;
    if (group.live > 0 && group.arrived == group.live) {
        group.arrived = 0;
        group.round++;
    }
}

UNSEEN inline void run_thread() {
    __tsan_acquire(&begun);
    (*kernel)();
    leave(*now->warp);
    leave(block);
    now->done = true;
    __tsan_release(&ended);
    hand_over();
}

// Another lane's value.
template <typename T> UNSEEN T exchange(T value, int from) {
    *(T *)&now->slots[now->lane] = value;
    wait(*now->warp, false);
    T got = value;
    if (from >= 0 && from < 32) got = *(T *)&now->slots[from];
    wait(*now->warp, false);
    return got;
}

UNSEEN inline void resume(Thread *thread) {
    now = thread;
    __tsan_switch_to_fiber(thread->fiber, 1);
    swapcontext(&scheduler, &thread->context);
}

UNSEEN inline void run_all(Thread *all, int count) {
    for (int left = count; left > 0;) {
        left = 0;
        for (int i = 0; i < count; i++)
            if (!all[i].done) {
                resume(&all[i]);
                left += !all[i].done;
            }
    }
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
        if (t.stack.empty()) t.stack.resize(128 << 10), t.fiber = __tsan_create_fiber(0);
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
    scheduler_fiber = __tsan_get_current_fiber();
    __tsan_release(&begun);
    run_all(&all[0], count);
    __tsan_acquire(&ended);
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

#define threadIdx (host::here()->index)
#define blockIdx (host::at)
#define blockDim (host::threads)
#define gridDim (host::blocks)

inline void __syncthreads() { host::wait(host::block); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(*host::here()->warp); }
template <typename T> T __shfl_sync(unsigned, T v, int from) { return host::exchange(v, from); }
template <typename T> T __shfl_xor_sync(unsigned, T v, int by) { return host::exchange(v, host::here()->lane ^ by); }
template <typename T> T __shfl_down_sync(unsigned, T v, int by) { return host::exchange(v, host::here()->lane + by); }

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
    // It may come at any time from here on; who reads it too early finds no number.
    __tsan_write_range(to, all);
    memset(to, 0xff, all);
    here()->copies.back().push_back(copy);
}
inline void arrive_but(size_t pending) {
    auto &groups = here()->copies;
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
inline void copies_sent() { host::here()->copies.push_back({}); }
template <int N> void copies_there_but() { host::arrive_but(N); }
inline void turn_wait(int barrier) { host::wait(host::turns[barrier]); }
inline void turn_over(int barrier) { host::arrive(host::turns[barrier]); }
template <typename T> T *counted_from(T *x) { return x; }
template <typename T> void made(T &) {}
