// The one merge of Partials, the pooling of keys, the mapping of values.
#include "cuda/sm80/finish.cuh"
#include "cuda/sm80/instance.h"
#include "cuda/sm80/rows.cuh"
#include "cuda/sm80/start.cuh"
#include "cuda/sm80/tf32.cuh"

namespace regard::cuda::sm80 {
namespace {

constexpr int kMaxWarps = 8, kMaxDv = 512;

__device__ RowSlots slots_of(const MergeParams& p, int branch, int64_t row) {
  return p.slots[branch] ? p.slots[branch][row] : RowSlots{row, 1, 1};
}

// One block a query row; warp w reads Partials w, w + warps, ...
__global__ void merge_kernel(const __grid_constant__ MergeParams p) {
  __shared__ float part[kMaxWarps][kMaxDv];
  __shared__ float total[kMaxDv];
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t id = blockIdx.x;
  const int i = int(id % p.nq), h = int(id / p.nq % p.heads);
  const int64_t b = id / p.nq / p.heads;
  for (int c = threadIdx.x; c < p.dv; c += blockDim.x) total[c] = 0;
  RowHead all;
  RowSlots next = slots_of(p, 0, id);  // of the plan, not of the kernel before
  wait_for_previous_kernel();
  for (int n = 0; n < p.branches; ++n) {
    const RowSlots rs = next;
    if (n + 1 < p.branches) next = slots_of(p, n + 1, id);
    const float2* const heads = reinterpret_cast<const float2*>(p.head[n]);
    float4 acc[kMaxDv / 128];
    for (auto& x : acc) x = make_float4(0, 0, 0, 0);
    RowHead own;
    for (int s = lane; s < rs.count; s += 32)
      own.max = fmaxf(own.max, heads[rs.first + int64_t(s) * rs.step].x);
    for (int d = 16; d > 0; d /= 2) own.max = fmaxf(own.max, __shfl_xor_sync(~0u, own.max, d));
    for (int s = lane; s < rs.count; s += 32) {
      const float2 x = heads[rs.first + int64_t(s) * rs.step];
      own.sum += x.y * scale_to(x.x, own.max);
    }
    for (int d = 16; d > 0; d /= 2) own.sum += __shfl_xor_sync(~0u, own.sum, d);
#pragma unroll 4
    for (int s = warp; s < rs.count; s += warps) {
      const int64_t slot = rs.first + int64_t(s) * rs.step;
      const float scale = scale_to(heads[slot].x, own.max);
#pragma unroll
      for (int k = 0; k < kMaxDv / 128; ++k) {
        const int c = k * 128 + lane * 4;
        if (c >= p.dv) break;
        const float4 x = *reinterpret_cast<const float4*>(&p.acc[n][slot * p.dv + c]);
        acc[k].x += scale * x.x, acc[k].y += scale * x.y;
        acc[k].z += scale * x.z, acc[k].w += scale * x.w;
      }
    }
    __syncthreads();  // the branch before has been read
#pragma unroll
    for (int k = 0; k < kMaxDv / 128; ++k)
      if (k * 128 + lane * 4 < p.dv)
        *reinterpret_cast<float4*>(&part[warp][k * 128 + lane * 4]) = acc[k];
    __syncthreads();
    float old_scale = 1, new_scale = 1;
    if (p.gate.data) {
      new_scale = finish_factor(own, p.sigmoid[n], p.sink_logit[n] ? p.sink_logit[n] + h : nullptr);
      const char* gate = p.gate.data + b * p.gate.batch + h * p.gate.head + i * p.gate.token;
      new_scale *= reinterpret_cast<const float*>(gate)[n];
      const float l = row_lse(own) / kLn2;
      own = {l, l == -kInf ? 0.0f : 1.0f};
    }
    const float m = all.max > own.max ? all.max : own.max;  // a NaN stays in the sum
    const float a = m == -kInf ? 0 : scale_to(all.max, m),
                c = m == -kInf ? 0 : scale_to(own.max, m);
    if (!p.gate.data) old_scale = a, new_scale = c;
    all = {m, all.sum * a + own.sum * c};
    for (int d = threadIdx.x; d < p.dv; d += blockDim.x) {
      float x = 0;
      for (int w = 0; w < min(warps, rs.count); ++w) x += part[w][d];
      total[d] = total[d] * old_scale + x * new_scale;
    }
  }
  const float factor = p.gate.data ? 1
                                   : finish_factor(all, p.sigmoid[0],
                                                   p.sink_logit[0] ? p.sink_logit[0] + h : nullptr);
  char* const out = p.out.data + b * p.out.batch + h * p.out.head + i * p.out.token;
  for (int d = threadIdx.x; d < p.dv; d += blockDim.x) write(out, p.out_type, d, total[d] * factor);
  if (threadIdx.x == 0 && p.lse.data)
    *reinterpret_cast<float*>(p.lse.data + b * p.lse.batch + h * p.lse.head + i * p.lse.token) =
        row_lse(all);
}

// The same where every row has one Partial a branch: a warp a row, lane n knows branch n.
__global__ void merge_whole_kernel(const __grid_constant__ MergeParams p) {
  const int lane = threadIdx.x % 32;
  const int64_t id = int64_t(blockIdx.x) * kMaxWarps + threadIdx.x / 32;
  if (id >= p.rows) return;
  const int i = int(id % p.nq), h = int(id / p.nq % p.heads);
  const int64_t b = id / p.nq / p.heads;
  const bool known = lane < p.branches;
  const int64_t slot = known ? slots_of(p, lane, id).first : 0;  // of the plan
  wait_for_previous_kernel();
  RowHead own;
  if (known) {
    const float2 x = reinterpret_cast<const float2*>(p.head[lane])[slot];
    own = {x.x, x.y};
  }
  float weight = 0;
  if (p.gate.data && known) {
    weight =
        finish_factor(own, p.sigmoid[lane], p.sink_logit[lane] ? p.sink_logit[lane] + h : nullptr);
    const char* gate = p.gate.data + b * p.gate.batch + h * p.gate.head + i * p.gate.token;
    weight *= reinterpret_cast<const float*>(gate)[lane];
    const float l = row_lse(own) / kLn2;
    own = {l, l == -kInf ? 0.0f : 1.0f};
  }
  RowHead all = own;
  for (int d = 16; d > 0; d /= 2) all.max = fmaxf(all.max, __shfl_xor_sync(~0u, all.max, d));
  const float scale = own.max != own.max ? own.max
                      : all.max == -kInf ? 0
                                         : scale_to(own.max, all.max);
  all.sum = own.sum * scale;
  for (int d = 16; d > 0; d /= 2) all.sum += __shfl_xor_sync(~0u, all.sum, d);
  float factor = 1;
  if (!p.gate.data) {
    weight = scale;
    factor = finish_factor(all, p.sigmoid[0], p.sink_logit[0] ? p.sink_logit[0] + h : nullptr);
  }
  char* const out = p.out.data + b * p.out.batch + h * p.out.head + i * p.out.token;
  for (int first = 0; first < p.dv; first += 128) {
    const int c = first + lane * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    for (int n = 0; n < p.branches; ++n) {
      const float w = __shfl_sync(~0u, weight, n);
      const int64_t from = __shfl_sync(~0u, slot, n);
      if (c >= p.dv) continue;
      const float4 x = *reinterpret_cast<const float4*>(&p.acc[n][from * p.dv + c]);
      sum.x += w * x.x, sum.y += w * x.y, sum.z += w * x.z, sum.w += w * x.w;
    }
    if (c >= p.dv) continue;
    write2(out, p.out_type, c, sum.x * factor, sum.y * factor);
    write2(out, p.out_type, c + 2, sum.z * factor, sum.w * factor);
  }
  if (lane == 0 && p.lse.data)
    *reinterpret_cast<float*>(p.lse.data + b * p.lse.batch + h * p.lse.head + i * p.lse.token) =
        row_lse(all);
}

// One warp a pooled row.
template <class T>
__global__ void pool_kernel(const __grid_constant__ PoolParams p) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int j = int(row % p.blocks), h = int(row / p.blocks % p.kv_heads);
  const int64_t b = row / p.blocks / p.kv_heads;
  const int first = j * p.block, last = min(first + p.block, p.nk);
  for (int c = threadIdx.x % 32; c < p.d; c += 32) {
    float sum = 0;
    for (int t = first; t < last; ++t)
      sum += to_float(reinterpret_cast<const T*>(row_at(p.from, b, h, t))[c]);
    write(p.to + row * p.d * int64_t(p.to_type == Type::f32 ? 4 : 2), p.to_type, c,
          sum / float(last - first));
  }
}

__global__ void tokens_kernel(const __grid_constant__ TokensParams p) {
  const int64_t id = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (id >= p.count) return;
  const int j = int(id % p.n), h = int(id / p.n % p.heads);
  const char* const own =
      p.from.data + id / p.n / p.heads * p.from.batch + h * p.from.head + j * p.from.token;
  p.to[id] = (p.from.data ? *reinterpret_cast<const float*>(own) : 0.0f) +
             logf(float(min(p.block, p.tokens - j * p.block)));
}

// A block maps kMapRows rows to kWide channels.
constexpr int kMapRows = 64;
template <class T>
__global__ void __launch_bounds__(128) map_kernel(const __grid_constant__ MapParams p) {
  __shared__ TileMemory<kMapRows> memory;
  __shared__ bool finite[kMapRows];  // an infinity times a number's lower part, 0, would be NaN
  const int tiles = (p.n + kMapRows - 1) / kMapRows, d0 = blockIdx.y * kWide;
  const int first = int(blockIdx.x % tiles) * kMapRows, h = int(blockIdx.x / tiles % p.kv_heads);
  const int64_t b = blockIdx.x / tiles / p.kv_heads;
  const float* const map = p.map + h * p.map_head + d0;
  const int own = threadIdx.x / 2, part = threadIdx.x % 2 * 16;
  const T* const from = reinterpret_cast<const T*>(row_at(p.from, b, h, min(first + own, p.n - 1)));
  TileSum sum;
  bool fine = true;
  for (int c0 = 0; c0 < p.d; c0 += kDeep) {
    __syncthreads();
    float x[16];
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = to_float(from[min(c0 + part + e, p.d - 1)]);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      memory.a[part + e][own] = c0 + part + e < p.d ? x[e] : 0;
      fine &= fabsf(x[e]) < kInf;
    }
    load_rows<128>(memory.b, map + int64_t(c0) * p.d, p.d, p.d - c0, p.d - d0);
    __syncthreads();
    constexpr Parts kParts = sizeof(T) == 4 ? Parts::two : Parts::one;
    multiply_tile<kMapRows, kParts, Parts::two>(memory, sum);
  }
  fine &= __shfl_xor_sync(~0u, int(fine), 1);
  if (part == 0) finite[own] = fine;
  __syncthreads();
  sum.each([&](int row, int column, float2 x) {
    if (first + row >= p.n || d0 + column >= p.d) return;
    const float* const bias = map + int64_t(p.d) * p.d + column;
    if (!finite[row]) {
      const T* const values = reinterpret_cast<const T*>(row_at(p.from, b, h, first + row));
      x = make_float2(0, 0);
      for (int c = 0; c < p.d; ++c) {
        const float* const m = map + int64_t(c) * p.d + column;
        x.x = fmaf(to_float(values[c]), m[0], x.x), x.y = fmaf(to_float(values[c]), m[1], x.y);
      }
    }
    char* const to = p.to + ((b * p.kv_heads + h) * p.n + first + row) * p.d * 2;
    write2(to, p.type, d0 + column, x.x + bias[0], x.y + bias[1]);
  });
}

}  // namespace

void launch_merge(const MergeParams& p, int warps, bool overlap, void* stream) {
  const bool whole = warps == 1;
  const int64_t blocks = whole ? (p.rows + kMaxWarps - 1) / kMaxWarps : p.rows;
  const int threads = 32 * (whole || warps > kMaxWarps ? kMaxWarps : warps);
  start<MergeParams>(whole ? merge_whole_kernel : merge_kernel, dim3(unsigned(blocks)), threads, p,
                     stream, overlap);
}

void launch_tokens(const TokensParams& p, void* stream) {
  start<TokensParams>(tokens_kernel, dim3(unsigned((p.count + 127) / 128)), 128, p, stream);
}

void launch_map(const MapParams& p, void* stream) {
  const unsigned tiles = unsigned(p.rows / p.n * ((p.n + kMapRows - 1) / kMapRows));
  const dim3 blocks(tiles, unsigned(p.d + kWide - 1) / kWide);
  const auto kernel = p.from_type == Type::f32    ? map_kernel<float>
                      : p.from_type == Type::bf16 ? map_kernel<__nv_bfloat16>
                                                  : map_kernel<__half>;
  start<MapParams>(kernel, blocks, 128, p, stream);
}

void launch_pool(const PoolParams& p, void* stream) {
  constexpr int kWarps = 4;
  const dim3 blocks(unsigned((p.rows + kWarps - 1) / kWarps));
  start<PoolParams>(p.type == Type::bf16 ? pool_kernel<__nv_bfloat16> : pool_kernel<__half>, blocks,
                    kWarps * 32, p, stream);
}

}  // namespace regard::cuda::sm80
