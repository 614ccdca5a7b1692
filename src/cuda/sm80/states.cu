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
__global__ void __launch_bounds__(256, 2) states_kernel(const __grid_constant__ StateParams p) {
  __shared__ TileMemory<128> memory;
  const int c = blockIdx.x, r0 = blockIdx.y * 128, wide = (p.dv + kWide - 1) / kWide;
  const int64_t n = blockIdx.z / wide, first = int64_t(c) * kStateKeys;
  const int d0 = int(blockIdx.z % wide) * kWide, keys = min(kStateKeys, p.nk - int(first));
  const bool loose = p.loose[n * padded(p) + c];
  const int own = threadIdx.x % 128, half = threadIdx.x / 128, r = p.first + r0 + own;
  const bool mine = r0 + own < p.count;
  const float shift = mine ? float(p.shift[(n * p.m + r) * padded(p) + c]) : 0;
  const float* const e = p.k_features + (n * p.nk + first) * p.m + (mine ? r : 0);
  TileSum sum;
  for (int k0 = 0; k0 < kStateKeys && !loose; k0 += kDeep) {
    __syncthreads();
    float x[kDeep / 2];
    uint4 v[2];
#pragma unroll
    for (int u = 0; u < kDeep / 2; ++u) x[u] = e[int64_t(min(k0 + half + 2 * u, keys - 1)) * p.m];
#pragma unroll
    for (int u = 0; u < 2; ++u) {  // 8 channels of keys tid / 16 and 16 more
      const int key = min(k0 + int(threadIdx.x) / 16 + 16 * u, keys - 1);
      v[u] = *reinterpret_cast<const uint4*>(
          row_at(p.v, n / p.kv_heads, int(n % p.kv_heads), int(first) + key) +
          min(d0 + int(threadIdx.x) % 16 * 8, p.dv - 8) * 2);
    }
#pragma unroll
    for (int u = 0; u < kDeep / 2; ++u)
      memory.a[half + 2 * u][own] = mine && k0 + half + 2 * u < keys ? exp2_fast(x[u] - shift) : 0;
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int k = threadIdx.x / 16 + 16 * u, d = threadIdx.x % 16 * 8;
      const bool there = k0 + k < keys && d0 + d < p.dv;
#pragma unroll
      for (int c = 0; c < 8; c += 2)
        *reinterpret_cast<float2*>(&memory.b[k][d + c]) =
            there ? pair_at<T>(reinterpret_cast<const char*>(&v[u]), c) : make_float2(0, 0);
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
    for (int k = half * 16; k < half * 16 + 16; k += 4) {
      const int4 shift = *reinterpret_cast<const int4*>(shifts + w * 32 + k);
      const int each[4] = {shift.x, shift.y, shift.z, shift.w};
#pragma unroll
      for (int e = 0; e < 4; ++e)
        memory.a[k + e][threadIdx.x % 128] = word >> (k + e) & 1 ? power(each[e] - own) : 0;
    }
    load_rows<256>(memory.b, states + int64_t(w) * 32 * p.chunk * p.dv, int64_t(p.chunk) * p.dv,
                   p.blocks - w * 32, p.dv - d0);
    __syncthreads();
    multiply_tile<128, Parts::one, Parts::two>(memory, sum);
  }
  write_state(sum, p.tile_states + ((n * p.whole.tiles + t0) * p.chunk + r) * p.dv + d0,
              int64_t(p.chunk) * p.dv, p.whole.tiles - t0, p.dv - d0);
}

// 64 rows of a tile times its state. A row whose features are not steady is left to the pairs.
__global__ void __launch_bounds__(128, 4) rows_kernel(const __grid_constant__ StateParams p) {
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
    const float e = p.q_features[(row0 + row) * p.m + r] + float(s);
    return s == kNoShift ? -kInf : e;
  };
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int kAtOnce = 4;  // rows of a warp
  for (int row = warp * 16; row < warp * 16 + 16 && p.first == 0; row += kAtOnce) {
    RowHead own[kAtOnce];
    for (int r = lane; r < p.m; r += 32)
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
        own[u].max = fmaxf(own[u].max, exponent(min(row + u, rows - 1), r));
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      for (int d = 16; d > 0; d /= 2)
        own[u].max = fmaxf(own[u].max, __shfl_xor_sync(~0u, own[u].max, d));
      if (!is_steady(p.q_top[row0 + min(row + u, rows - 1)])) own[u].max = -kInf;
    }
    for (int r = lane; r < p.m; r += 32)
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
        own[u].sum =
            fmaf(exp2_fast(exponent(min(row + u, rows - 1), r) - own[u].max), sums[r], own[u].sum);
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      for (int d = 16; d > 0; d /= 2) own[u].sum += __shfl_xor_sync(~0u, own[u].sum, d);
      if (lane != 0 || row + u >= rows) continue;
      if (own[u].max == -kInf) own[u].sum = 0;
      top[row + u] = own[u].max;
      if (d0 == 0)
        *reinterpret_cast<float2*>(p.head + 2 * (row0 + row + u)) =
            make_float2(own[u].max, own[u].sum);
    }
  }
  if (p.first > 0 && int(threadIdx.x) < rows) top[threadIdx.x] = p.head[2 * (row0 + threadIdx.x)];
  __syncthreads();
  const int own = threadIdx.x % kRows, half = threadIdx.x / kRows;
  const float max = own < rows ? top[own] : -kInf;
  const float* const states = p.tile_states + (n * p.whole.tiles + tile) * p.chunk * p.dv + d0;
  TileSum sum;
  for (int r0 = 0; r0 < p.count; r0 += kDeep) {
    __syncthreads();
    float x[16];
#pragma unroll
    for (int u = 0; u < 16; ++u)
      x[u] = exponent(min(own, rows - 1), p.first + min(r0 + half * 16 + u, p.count - 1));
#pragma unroll
    for (int u = 0; u < 16; ++u)
      memory.a[half * 16 + u][own] =
          max > -kInf && r0 + half * 16 + u < p.count ? exp2_fast(x[u] - max) : 0;
    load_rows<128>(memory.b, states + int64_t(r0) * p.dv, p.dv, p.count - r0, p.dv - d0);
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
