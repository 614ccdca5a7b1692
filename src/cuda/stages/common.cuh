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

// Whether rows lie at 16 bytes and are made of so many: then kWide loads take eight channels at
// once.
inline bool wide(const Rows& r) {
  return (reinterpret_cast<uintptr_t>(r.data) | uintptr_t(r.batch | r.head | r.token)) % 16 == 0 &&
         r.channels % 8 == 0;
}
// Eight channels of a row from channel t on, not yet waited for; zeros past its end and where there
// is no row.
template <class T, bool kWide>
__device__ inline uint4 load8(const T* row, int t, int channels) {
  uint4 x = {};
  if constexpr (kWide) {
    if (row && t < channels) x = *reinterpret_cast<const uint4*>(row + t);
  } else {
    T* const e = reinterpret_cast<T*>(&x);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (row && t + i < channels) e[i] = row[t + i];
  }
  return x;
}
template <class T>
__device__ inline void to_floats(const uint4& x, float (&to)[8]) {
  const T* const e = reinterpret_cast<const T*>(&x);
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = to_float(e[i]);
}

// exponential::of(x) for x <= 0 or NaN: the same bits with neither conversion nor second factor,
// since 2^n is at least the least normal number. Adding kOnes rounds to a whole number.
constexpr float kOnes = 12582912;  // 1.5 * 2^23
__device__ inline float falling_exponential(float x) {
  using namespace exponential;  // NOLINT
  const float shifted = __fadd_rn(__fmul_rn(x, kLog2e), kOnes), n = __fadd_rn(shifted, -kOnes);
  const float y = of_rest(x, n);
  const float factor = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
  return x < kLeast ? 0 : y * factor;
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
