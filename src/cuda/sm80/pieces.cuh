// Rows whose keys were cut into pieces, each a block's: the last one to end merges all.
// Layer: cuda.
#pragma once
#include "cuda/sm80/finish.cuh"

namespace regard::cuda::sm80 {

// After a block has written its Partials. One warp a row.
template <class S>
__device__ __forceinline__ void merge_pieces(const Params& p, const Item& item) {
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) last = add_one(&p.done[item.tile]) == uint32_t(item.pieces - 1);
  if (!__syncthreads_or(last)) return;
  if (threadIdx.x == 0) p.done[item.tile] = 0;
  constexpr int kAtOnce = S::kDv <= 128 ? 16 : 4, kParts = (S::kDv + 127) / 128;
  const int lane = threadIdx.x % 32, rows = item.queries * item.heads;
#pragma unroll 1
  for (int row = threadIdx.x / 32; row < rows; row += S::kThreads / 32) {
    RowHead all;
    float4 acc[kParts];
#pragma unroll
    for (float4& x : acc) x = make_float4(0, 0, 0, 0);
#pragma unroll 1
    for (int first = 0; first < item.pieces; first += kAtOnce) {
      const int64_t slot = item.first_slot + int64_t(first) * rows + row;
      const float* from = p.part_acc + slot * p.dv + lane * 4;
      const int count = min(kAtOnce, item.pieces - first);
      float4 x[kAtOnce][kParts];
      RowHead own;
      if (lane < count) {
        const float2 head =
            __ldcg(reinterpret_cast<const float2*>(p.part_head) + slot + int64_t(lane) * rows);
        own = {head.x, head.y};
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u, from += rows * p.dv)
#pragma unroll
        for (int k = 0; k < kParts; ++k) {
          x[u][k] = make_float4(0, 0, 0, 0);
          if (u < count && k * 128 + lane * 4 < p.dv)
            x[u][k] = __ldcg(reinterpret_cast<const float4*>(from + k * 128));
        }
      float max = fmaxf(all.max, own.max);
#pragma unroll
      for (int d = 16; d > 0; d /= 2) max = fmaxf(max, __shfl_xor_sync(~0u, max, d));
      const float keep = scale_to(all.max, max), by = scale_to(own.max, max);
      all = {max, all.sum * keep + own.sum * by};
#pragma unroll
      for (float4& a : acc) a.x *= keep, a.y *= keep, a.z *= keep, a.w *= keep;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const float scale = __shfl_sync(~0u, by, u);
#pragma unroll
        for (int k = 0; k < kParts; ++k) {
          acc[k].x += scale * x[u][k].x, acc[k].y += scale * x[u][k].y;
          acc[k].z += scale * x[u][k].z, acc[k].w += scale * x[u][k].w;
        }
      }
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) all.sum += __shfl_xor_sync(~0u, all.sum, d);
    const int i = query_of<S>(p, item, row), h = item.h0 + row % item.heads;
    const float factor = finish_factor(all, p.sigmoid, p.sink_logit ? p.sink_logit + h : nullptr);
    char* const out = p.out.data + item.b * p.out.batch + h * p.out.head + i * p.out.token;
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      const int c = k * 128 + lane * 4;
      if (c >= p.dv) continue;
      write2(out, p.out_type, c, acc[k].x * factor, acc[k].y * factor);
      write2(out, p.out_type, c + 2, acc[k].z * factor, acc[k].w * factor);
    }
    if (lane == 0 && p.lse.data)
      *reinterpret_cast<float*>(p.lse.data + item.b * p.lse.batch + h * p.lse.head +
                                i * p.lse.token) = row_lse(all);
  }
}

}  // namespace regard::cuda::sm80
