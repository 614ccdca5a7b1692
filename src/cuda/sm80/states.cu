// Linear attention by sums over blocks of keys: see StateParams and docs/kernels/cuda.md.
#include "cuda/sm80/finish.cuh"
#include "cuda/sm80/instance.h"
#include "cuda/sm80/rows.cuh"
#include "cuda/sm80/start.cuh"
#include "cuda/sm80/tf32.cuh"
#include "cuda/sm80/whole.cuh"

namespace regard::cuda::sm80 {
namespace {

constexpr int kThreads = 128, kTilesAtOnce = 4;

// 2^n for n <= 0, or 0.
__device__ float power(int n) { return n < -126 ? 0.0f : __int_as_float((127 + n) << 23); }

__device__ int64_t padded(const StateParams& p) { return int64_t(p.whole.words) * 32; }

// Shifts and sums of phi of one block of keys of one KV head.
template <class T>
__global__ void __launch_bounds__(kThreads) bounds_kernel(const __grid_constant__ StateParams p) {
  constexpr float kMost = 0x1p100f;  // a value of this size could make a sum infinite
  const int c = blockIdx.x, first = c * kStateKeys, keys = min(kStateKeys, p.nk - first);
  const int64_t n = blockIdx.y, row = n * p.nk + first;
  bool loose = false;
  if (c < p.blocks) {
    const int h = int(n % p.kv_heads), lane = threadIdx.x % 32;
    for (int j = threadIdx.x / 32; j < keys; j += kThreads / 32) {
      const char* const v = row_at(p.v, n / p.kv_heads, h, first + j);
      for (int d = lane * 2; d < p.dv; d += 64) {
        const float2 x = pair_at<T>(v, d);
        loose |= !(fmaxf(fabsf(x.x), fabsf(x.y)) < kMost) || x.x != x.x || x.y != x.y;
      }
    }
    for (int j = threadIdx.x; j < keys; j += kThreads) loose |= !is_steady(p.k_top[row + j]);
  }
  int32_t* const shift = p.shift + n * p.m * padded(p) + c;
  float* const sum = p.sum + n * p.m * padded(p) + c;
  for (int r = threadIdx.x; r < p.m; r += kThreads) {
    float top = -kInf, total = 0;
    if (c < p.blocks) {
      const float* const e = p.k_features + row * p.m + r;
#pragma unroll 8
      for (int j = 0; j < keys; ++j) top = fmaxf(top, e[int64_t(j) * p.m]);
      top = ceilf(top);
      loose |= top > -kInf && !is_steady(top);
#pragma unroll 8
      for (int j = 0; j < keys && top > -kInf; ++j) total += exp2_fast(e[int64_t(j) * p.m] - top);
    }
    shift[r * padded(p)] = top > -kInf ? int(top) : kNoShift;
    sum[r * padded(p)] = total;
  }
  loose = __syncthreads_or(loose);
  if (threadIdx.x == 0) p.loose[n * padded(p) + c] = loose;
  for (int r = threadIdx.x; loose && r < p.m; r += kThreads)
    shift[r * padded(p)] = kNoShift, sum[r * padded(p)] = 0;
}

__device__ const uint32_t* bits_of(const StateParams& p, int64_t b, int set, int tile) {
  return whole_bits(p.whole, b, set, p.sets, tile);
}

// The same of a tile's blocks together; a thread a feature and kTilesAtOnce tiles.
__global__ void __launch_bounds__(kThreads) tiles_kernel(const __grid_constant__ StateParams p) {
  const int t0 = blockIdx.x * kTilesAtOnce, r = blockIdx.y * kThreads + threadIdx.x;
  const int64_t n = blockIdx.z, b = n / p.sets;
  const int set = int(n % p.sets);
  if (r >= p.m) return;
  const int64_t at = ((b * p.kv_heads + set / (p.sets / p.kv_heads)) * p.m + r) * padded(p);
  const int tiles = min(kTilesAtOnce, p.whole.tiles - t0);
  int shift[kTilesAtOnce];
  float sum[kTilesAtOnce] = {};
  for (int& s : shift) s = kNoShift;
  for (int w = 0; w < p.whole.words; ++w) {
    uint32_t bits[kTilesAtOnce], any = 0;
#pragma unroll
    for (int u = 0; u < kTilesAtOnce; ++u)
      any |= bits[u] = u < tiles ? bits_of(p, b, set, t0 + u)[w] : 0;
    if (any == 0) continue;
#pragma unroll
    for (int c = 0; c < 32; c += 4) {
      const int4 s4 = *reinterpret_cast<const int4*>(p.shift + at + w * 32 + c);
      const float4 x4 = *reinterpret_cast<const float4*>(p.sum + at + w * 32 + c);
      const int s[4] = {s4.x, s4.y, s4.z, s4.w};
      const float x[4] = {x4.x, x4.y, x4.z, x4.w};
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int u = 0; u < kTilesAtOnce; ++u) {
          if (!(bits[u] >> (c + e) & 1)) continue;
          const int top = max(shift[u], s[e]);
          sum[u] = sum[u] * power(shift[u] - top) + x[e] * power(s[e] - top);
          shift[u] = top;
        }
    }
  }
  for (int u = 0; u < tiles; ++u) {
    const int64_t to = (n * p.whole.tiles + t0 + u) * p.m + r;
    p.tile_shift[to] = shift[u], p.tile_sum[to] = sum[u];
  }
}

__device__ void write_state(TileSum& sum, float* to, int64_t stride, int rows, int columns) {
  sum.each([&](int row, int column, float2 x) {
    if (row < rows && column < columns) *reinterpret_cast<float2*>(to + row * stride + column) = x;
  });
}

// 128 features of the state of one block of keys, 128 channels.
template <class T>
__global__ void __launch_bounds__(256) states_kernel(const __grid_constant__ StateParams p) {
  __shared__ TileMemory<128> memory;
  const int c = blockIdx.x, r0 = blockIdx.y * 128, wide = (p.dv + kWide - 1) / kWide;
  const int64_t n = blockIdx.z / wide, first = int64_t(c) * kStateKeys;
  const int d0 = int(blockIdx.z % wide) * kWide, keys = min(kStateKeys, p.nk - int(first));
  const bool loose = p.loose[n * padded(p) + c];
  const int own = threadIdx.x % 128, half = threadIdx.x / 128, r = p.first + r0 + own;
  const bool mine = r0 + own < p.count;
  const float shift = mine ? float(p.shift[(n * p.m + r) * padded(p) + c]) : 0;
  TileSum sum;
  for (int k0 = 0; k0 < kStateKeys && !loose; k0 += kDeep) {
    __syncthreads();
#pragma unroll 8
    for (int k = half; k < kDeep; k += 2) {
      const bool there = mine && k0 + k < keys;
      memory.a[k][own] =
          there ? exp2_fast(p.k_features[(n * p.nk + first + k0 + k) * p.m + r] - shift) : 0;
    }
    for (int e = threadIdx.x; e < kDeep * kWide / 2; e += 256) {
      const int k = e / (kWide / 2), d = e % (kWide / 2) * 2;
      float2 x = make_float2(0, 0);
      if (k0 + k < keys && d0 + d < p.dv)
        x = pair_at<T>(row_at(p.v, n / p.kv_heads, int(n % p.kv_heads), int(first) + k0 + k),
                       d0 + d);
      *reinterpret_cast<float2*>(&memory.b[k][d]) = x;
    }
    __syncthreads();
    multiply_tile<128, Parts::two, Parts::one>(memory, sum);
  }
  write_state(sum, p.states + ((n * p.blocks + c) * p.chunk + r0) * p.dv + d0, p.dv, p.count - r0,
              p.dv - d0);
}

// One feature of the states of 128 tiles of rows: sums over their blocks.
__global__ void __launch_bounds__(256, 2) mix_kernel(const __grid_constant__ StateParams p) {
  __shared__ TileMemory<128> memory;
  const int r = blockIdx.x, t0 = blockIdx.y * 128, wide = (p.dv + kWide - 1) / kWide;
  const int64_t n = blockIdx.z / wide, b = n / p.sets;
  const int set = int(n % p.sets), d0 = int(blockIdx.z % wide) * kWide;
  const int64_t kv = b * p.kv_heads + set / (p.sets / p.kv_heads);
  const int tile = t0 + int(threadIdx.x) % 128, half = threadIdx.x / 128;
  const bool mine = tile < p.whole.tiles;
  const uint32_t* const bits = bits_of(p, b, set, mine ? tile : 0);
  const int32_t* const shifts = p.shift + (kv * p.m + p.first + r) * padded(p);
  const int own = mine ? p.tile_shift[(n * p.whole.tiles + tile) * p.m + p.first + r] : 0;
  const float* const states = p.states + (kv * p.blocks * p.chunk + r) * p.dv + d0;
  TileSum sum;
  for (int w = 0; w < p.whole.words; ++w) {
    const uint32_t word = mine ? bits[w] : 0;
    if (!__syncthreads_or(word != 0)) continue;
#pragma unroll
    for (int k = half * 16; k < half * 16 + 16; ++k)
      memory.a[k][threadIdx.x % 128] = word >> k & 1 ? power(shifts[w * 32 + k] - own) : 0;
#pragma unroll
    for (int e = threadIdx.x; e < kDeep * kWide / 4; e += 256) {
      const int k = e / (kWide / 4), d = e % (kWide / 4) * 4, c = w * 32 + k;
      float4 x = make_float4(0, 0, 0, 0);
      if (c < p.blocks && d0 + d < p.dv)
        x = *reinterpret_cast<const float4*>(states + int64_t(c) * p.chunk * p.dv + d);
      *reinterpret_cast<float4*>(&memory.b[k][d]) = x;
    }
    __syncthreads();
    multiply_tile<128, Parts::one, Parts::two>(memory, sum);
  }
  write_state(sum, p.tile_states + ((n * p.whole.tiles + t0) * p.chunk + r) * p.dv + d0,
              int64_t(p.chunk) * p.dv, p.whole.tiles - t0, p.dv - d0);
}

// 64 rows of a tile times its state. A row whose features are not steady is left to the pairs.
__global__ void __launch_bounds__(128) rows_kernel(const __grid_constant__ StateParams p) {
  constexpr int kRows = 64;
  __shared__ TileMemory<kRows> memory;
  __shared__ float top[kRows];
  const int pieces = (p.whole.rows + kRows - 1) / kRows, tile = blockIdx.x / pieces;
  const int i0 = tile * p.whole.rows + int(blockIdx.x % pieces) * kRows;
  const int rows = min(min(kRows, p.nq - i0), (tile + 1) * p.whole.rows - i0);
  const int wide = (p.dv + kWide - 1) / kWide, h = blockIdx.y;
  const int64_t b = blockIdx.z / wide, n = b * p.sets + h / (p.heads / p.sets);
  const int d0 = int(blockIdx.z % wide) * kWide;
  if (rows <= 0) return;
  const int64_t row0 = (b * p.heads + h) * p.nq + i0;
  const int32_t* const shift = p.tile_shift + (n * p.whole.tiles + tile) * p.m;
  const float* const sums = p.tile_sum + (n * p.whole.tiles + tile) * p.m;
  const auto exponent = [&](int row, int r) {
    const int s = shift[r];
    return s == kNoShift ? -kInf : p.q_features[(row0 + row) * p.m + r] + float(s);
  };
  const int lane = threadIdx.x % 32;
  for (int row = threadIdx.x / 32; row < rows; row += 4) {
    if (p.first > 0) {
      if (lane == 0) top[row] = p.head[2 * (row0 + row)];
      continue;
    }
    RowHead own;
    if (is_steady(p.q_top[row0 + row])) {
      for (int r = lane; r < p.m; r += 32) own.max = fmaxf(own.max, exponent(row, r));
      for (int d = 16; d > 0; d /= 2) own.max = fmaxf(own.max, __shfl_xor_sync(~0u, own.max, d));
      for (int r = lane; r < p.m && own.max > -kInf; r += 32)
        own.sum = fmaf(exp2_fast(exponent(row, r) - own.max), sums[r], own.sum);
      for (int d = 16; d > 0; d /= 2) own.sum += __shfl_xor_sync(~0u, own.sum, d);
    }
    if (lane != 0) continue;
    top[row] = own.max;
    if (d0 == 0)
      *reinterpret_cast<float2*>(p.head + 2 * (row0 + row)) = make_float2(own.max, own.sum);
  }
  __syncthreads();
  const int own = threadIdx.x % kRows, half = threadIdx.x / kRows;
  const float max = own < rows ? top[own] : -kInf;
  const float* const states = p.tile_states + (n * p.whole.tiles + tile) * p.chunk * p.dv + d0;
  TileSum sum;
  for (int r0 = 0; r0 < p.count; r0 += kDeep) {
    __syncthreads();
#pragma unroll 8
    for (int k = half * 16; k < half * 16 + 16; ++k)
      memory.a[k][own] =
          max > -kInf && r0 + k < p.count ? exp2_fast(exponent(own, p.first + r0 + k) - max) : 0;
#pragma unroll 8
    for (int e = threadIdx.x; e < kDeep * kWide / 4; e += 128) {
      const int k = e / (kWide / 4), d = e % (kWide / 4) * 4;
      float4 x = make_float4(0, 0, 0, 0);
      if (r0 + k < p.count && d0 + d < p.dv)
        x = *reinterpret_cast<const float4*>(states + int64_t(r0 + k) * p.dv + d);
      *reinterpret_cast<float4*>(&memory.b[k][d]) = x;
    }
    __syncthreads();
    multiply_tile<kRows, Parts::two, Parts::two>(memory, sum);
  }
  sum.each([&](int row, int column, float2 x) {
    if (row >= rows || d0 + column >= p.dv) return;
    float2* const to = reinterpret_cast<float2*>(p.acc + (row0 + row) * p.dv + d0 + column);
    const float2 old = p.first > 0 ? *to : make_float2(0, 0);
    *to = make_float2(old.x + x.x, old.y + x.y);
  });
}

}  // namespace

void launch_state_bounds(const StateParams& p, void* stream) {
  const dim3 blocks(unsigned(p.whole.words) * 32, unsigned(p.batch * p.kv_heads));
  start<StateParams>(p.type == Type::bf16 ? bounds_kernel<__nv_bfloat16> : bounds_kernel<__half>,
                     blocks, kThreads, p, stream);
  const dim3 tiles(unsigned((p.whole.tiles + kTilesAtOnce - 1) / kTilesAtOnce),
                   unsigned((p.m + kThreads - 1) / kThreads), unsigned(p.batch * p.sets));
  start<StateParams>(tiles_kernel, tiles, kThreads, p, stream);
}

void launch_states(const StateParams& p, void* stream) {
  const unsigned wide = unsigned(p.dv + kWide - 1) / kWide, batch = unsigned(p.batch) * wide;
  const dim3 states(unsigned(p.blocks), unsigned((p.count + 127) / 128), batch * p.kv_heads);
  start<StateParams>(p.type == Type::bf16 ? states_kernel<__nv_bfloat16> : states_kernel<__half>,
                     states, 256, p, stream);
  const dim3 mixed(unsigned(p.count), unsigned((p.whole.tiles + 127) / 128), batch * p.sets);
  start<StateParams>(mix_kernel, mixed, 256, p, stream);
  const dim3 rows(unsigned(p.whole.tiles * ((p.whole.rows + 63) / 64)), unsigned(p.heads), batch);
  start<StateParams>(rows_kernel, rows, 128, p, stream);
}

}  // namespace regard::cuda::sm80
