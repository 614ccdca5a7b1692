// What stage kernels share. Layer: cuda (device code).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "algebra/exponential.h"
#include "cuda/stages/params.h"

namespace regard::cuda::stages {

constexpr float kInf = INFINITY;

__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ inline const T* row_of(const Rows& r, int64_t b, int h, int64_t token) {
  return reinterpret_cast<const T*>(r.data + b * r.batch + h * r.head + token * r.token);
}

// The last step of matrix::sum_of: lane l's sum with that of lane l + 16, and so on. All lanes get
// lane 0's, since the others add in another order.
__device__ inline float fold(float x) {
#pragma unroll
  for (int width = 16; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
  return __shfl_sync(~0u, x, 0);
}
__device__ inline float max_of_lanes(float x) {
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    const float y = __shfl_xor_sync(~0u, x, width);
    x = y > x ? y : x;
  }
  return x;
}

// Floats as integers of the same order; 0 stands for less than any.
__device__ inline uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float unordered(uint32_t x) {
  return x == 0 ? -kInf : __uint_as_float(x >> 31 ? x & 0x7fffffffu : ~x);
}

}  // namespace regard::cuda::stages
