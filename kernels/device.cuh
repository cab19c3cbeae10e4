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
// Sixteen bytes, both places at a multiple of that.
__device__ static void copy_four_ahead(float *to, const float *from) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from));
}
// Asks for the line of memory that this lies in.
__device__ static void ask_for(const void *line) { asm volatile("prefetch.global.L1 [%0];" ::"l"(line)); }
__device__ static void copies_sent() { asm volatile("cp.async.commit_group;"); }
// All but the latest group are there.
__device__ static void copies_there() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }

#define DYNAMIC_SHARED extern __shared__ float4 shared[]

#endif
