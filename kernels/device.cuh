// What the kernels say to the chip itself; on the host (host/cuda.h), the same in plain C++.
#pragma once
#ifdef __CUDACC__

__device__ static float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Four bytes, to shared memory: one float, or two bf16 at an even place.
__device__ static void copy_ahead(void *to, const void *from) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from));
}
// Sixteen bytes, or the first `bytes` of them and then zeros; both places at a multiple of sixteen.
__device__ static void copy_sixteen(void *to, const void *from, int bytes = 16) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes));
}
// Asks for the line of memory that this lies in.
__device__ static void ask_for(const void *line) { asm volatile("prefetch.global.L1 [%0];" ::"l"(line)); }
__device__ static void copies_sent() { asm volatile("cp.async.commit_group;"); }
// All but the latest N groups are there.
template <int N> __device__ static void copies_there_but() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
// One warp waits until another has handed over: both name the same barrier, 1 to 15 (PTX ISA, bar: producer and consumer).
__device__ static void turn_wait(int barrier) { asm volatile("bar.sync %0, 64;" ::"r"(barrier) : "memory"); }
__device__ static void turn_over(int barrier) { asm volatile("bar.arrive %0, 64;" ::"r"(barrier) : "memory"); }
// An address in global memory that places are counted from, rather than a part of longer sums.
template <typename T> __device__ static T *counted_from(T *x) {
    asm("" : "+l"(x));
    __builtin_assume(__isGlobal(x));
    return x;
}
// Not to be computed later than here.
__device__ static void made(float &x) { asm volatile("" : "+f"(x)); }
__device__ static void made(int &x) { asm volatile("" : "+r"(x)); }

#define DYNAMIC_SHARED extern __shared__ float4 shared[]

#endif
