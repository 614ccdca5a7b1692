// The arithmetic of one row: rounding, finishing, score hooks. Layer: cuda (device code).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/ptx.h"
#include "cuda/sm90/call.h"

namespace regard::cuda::sm90 {

__device__ __forceinline__ uint32_t pack(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 x = __floats2bfloat162_rn(a, b);
  return reinterpret_cast<const uint32_t&>(x);
}
__device__ __forceinline__ uint32_t pack(float a, float b, __half) {
  const __half2 x = __floats2half2_rn(a, b);
  return reinterpret_cast<const uint32_t&>(x);
}
// seen + 0 x: NaN from the first NaN or infinity on.
__device__ __forceinline__ uint32_t absorb(uint32_t x, uint32_t seen, __nv_bfloat16) {
  asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(seen) : "r"(x), "r"(0));
  return seen;
}
__device__ __forceinline__ uint32_t absorb(uint32_t x, uint32_t seen, __half) {
  asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(seen) : "r"(x), "r"(0));
  return seen;
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// 2^(x - top), for top the largest of all x; nothing where there is nothing.
__device__ __forceinline__ float relative(float x, float top) {
  return x == -INFINITY ? 0.f : x == top ? 1.f : ptx::exp2(x - top);
}

// A finished row: what its sums are multiplied by, and its lse. Of a Partial nothing, and its
// maximum (log2 units) and sum.
struct Finish {
  float factor, lse, sum;
};
__device__ __forceinline__ Finish finish(const Call& c, int head, float top, float sum) {
  constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
  if (c.partial) return {1, top, sum};
  float shrink = 1;
  if (c.sink_logit) {
    const float sink = c.sink_logit[head] * kLog2e, to = fmaxf(top, sink);
    shrink = relative(top, to);
    sum = sum * shrink + relative(sink, to);
    top = to;
  }
  if (sum == 0) return {0, -INFINITY, 0};
  float inverse = __fdividef(1.f, sum);
  inverse = fmaf(inverse, fmaf(-sum, inverse, 1.f), inverse);  // to half an ulp or so
  return {shrink * inverse, (top + ptx::log2(sum)) * kLn2, sum};
}
__device__ __forceinline__ void write_lse(const Call& c, const Work& w, int row, int head,
                                          float lse, float sum) {
  const int64_t line = int64_t{c.cu_q ? 0 : w.batch} * (c.heads.by << c.pack) + head;
  const int64_t at = line * c.lse_head + w.q0 + (row >> c.pack);
  if (c.partial) {
    reinterpret_cast<float2*>(c.lse)[at] = make_float2(lse, sum);
  } else {
    c.lse[at] = lse;
  }
}

// tanh y for y >= 0 by an exponential, since the approximate instruction has too few bits for a
// large cap; below 1/4, where the difference cancels, by its series (the first term left out: 9e-9
// y).
__device__ __forceinline__ float tanh_of(float y) {
  constexpr float kLog2e = 1.4426950408889634f;
  const float e = ptx::exp2(y * (-2 * kLog2e)), z = y * y;
  float series = fmaf(62.f / 2835, z, -17.f / 315);
  series = fmaf(fmaf(series, z, 2.f / 15), z, -1.f / 3);
  return y < 0.25f ? fmaf(y * z, series, y) : (1 - e) / (1 + e);
}

// A score after the hooks, in log2 units: soft-cap, then ALiBi.
__device__ __forceinline__ float hooked(const Call& c, float x, float slope, int distance) {
  constexpr float kLog2e = 1.4426950408889634f;
  x *= c.scale;
  if (c.softcap > 0) x = copysignf(c.softcap * tanh_of(fabsf(x) / c.softcap), x);
  return (x - slope * fabsf(static_cast<float>(distance))) * kLog2e;
}

}  // namespace regard::cuda::sm90
