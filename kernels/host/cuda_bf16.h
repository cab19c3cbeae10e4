// bf16 on the host, as far as the kernels use it.
#pragma once
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t all;
        memcpy(&all, &x, 4);
        bits = (all + 0x7fff + (all >> 16 & 1)) >> 16;
    }
};
inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t all = (uint32_t)x.bits << 16;
    float y;
    memcpy(&y, &all, 4);
    return y;
}
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
