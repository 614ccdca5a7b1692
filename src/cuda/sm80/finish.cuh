// From a row's Partial to what is written. Layer: cuda.
#pragma once
#include "cuda/sm80/params.h"
#include "cuda/sm80/ptx.cuh"

namespace regard::cuda::sm80 {

constexpr float kInf = __builtin_huge_valf();
constexpr float kLn2 = 0.6931471805599453f;

// The query of an item's row.
template <class S>
__device__ inline int query_of(const Params& p, const Item& item, int row) {
  const int place = item.i0 + row / item.heads;
  if (S::kLean || !p.query_order) return place;
  return int(
      p.query_order[item.b * p.query_batch + (item.h0 + row % item.heads) * p.query_head + place]);
}

// A row's maximum (in units of log2 e) and the sum of its weights beneath it.
struct RowHead {
  float max = -kInf, sum = 0;
};

// 2^(x - max); an infinite maximum meets itself as 1.
__device__ inline float scale_to(float x, float max) { return x == max ? 1.0f : exp2f(x - max); }

__device__ inline float row_lse(const RowHead& h) {
  return h.sum == 0 ? -kInf : (h.max + log2f(h.sum)) * kLn2;
}

// What the accumulator must be multiplied with; `h` gets the sink logit, one more key without a
// value.
__device__ inline float finish_factor(RowHead& h, bool sigmoid, const float* sink_logit) {
  if (sigmoid) return 1;
  float scale = 1;
  if (sink_logit && *sink_logit > -kInf) {
    const float m = fmaxf(h.max, *sink_logit);
    scale = scale_to(h.max, m);
    h.sum = h.sum * scale + scale_to(*sink_logit, m);
    h.max = m;
  }
  return h.sum == 0 ? 0 : scale / h.sum;
}

__device__ inline void write(char* row, Type type, int c, float x) {
  if (type == Type::f32) reinterpret_cast<float*>(row)[c] = x;
  if (type == Type::f16) reinterpret_cast<__half*>(row)[c] = __float2half_rn(x);
  if (type == Type::bf16) reinterpret_cast<__nv_bfloat16*>(row)[c] = __float2bfloat16_rn(x);
}
// Channels c and c + 1; c is even.
__device__ inline void write2(char* row, Type type, int c, float x, float y) {
  if (type == Type::f32) {
    *reinterpret_cast<float2*>(row + c * 4) = make_float2(x, y);
  } else {
    *reinterpret_cast<uint32_t*>(row + c * 2) =
        type == Type::f16 ? pack<__half>(x, y) : pack<__nv_bfloat16>(x, y);
  }
}

}  // namespace regard::cuda::sm80
