// Numbers rounded to bf16 (8 significant bits, ties to even), for products that take it.
#include <cuda_bf16.h>

extern "C" __global__ void round_to_bf16(const float *x, __nv_bfloat16 *y, int count) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)count; i += gridDim.x * blockDim.x) y[i] = __float2bfloat16(x[i]);
}
