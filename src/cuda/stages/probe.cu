// The last queries' probabilities down columns and along diagonals; the arithmetic is that of
// stages/estimate/vertical_slash.cc and stages/rows.cc.
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kSide = 128, kDepth = 16, kOwn = 8, kThreads = 256;

__device__ int64_t query_of(const Probe& p, int row) { return p.nq - p.probes + row % p.probes; }
// Keys that a probe sees.
__device__ int64_t seen_by(const Probe& p, int64_t query) {
  if (!p.causal) return p.nk;
  return max(int64_t(0), min(p.nk, query + p.offset + 1));
}

// Logits and their maxima: 128 rows (probes of all heads of a KV head) x 128 keys a block, 8 x 8 a
// thread; sums over channels in order, fused.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) logits_kernel(const __grid_constant__ Probe p) {
  __shared__ __align__(16) float q[2][kDepth][kSide + 4], k[2][kDepth][kSide + 4];
  const int rows = p.group * p.probes, r0 = blockIdx.y * kSide;
  const int64_t j0 = int64_t(blockIdx.x) * kSide;
  const int kv_heads = p.k.heads, pair = p.first + blockIdx.z;
  const int64_t b = pair / kv_heads;
  const int kv = pair % kv_heads;
  const int own_row = threadIdx.x / 16, own_col = threadIdx.x % 16;

  // A thread fetches 8 channels of one query row and of one key.
  const int line = threadIdx.x / 2, part = threadIdx.x % 2 * 8;
  const bool query = r0 + line < rows, key = j0 + line < p.nk;
  const T* const from_q =
      query ? row_of<T>(p.q, b, kv * p.group + (r0 + line) / p.probes, query_of(p, r0 + line))
            : nullptr;
  const T* const from_k = key ? row_of<T>(p.k, b, kv, j0 + line) : nullptr;
  // Where rows lie at 16 bytes, a load takes all eight.
  const auto wide = [](const T* row) { return reinterpret_cast<uintptr_t>(row) % 16 == 0; };
  const bool wide_q = wide(from_q), wide_k = wide(from_k);
  float next_q[8], next_k[8];
  const auto eight = [&](const T* row, bool aligned, int t, float(&to)[8]) {
    if (row && aligned && t + 8 <= p.q.channels) {
      const uint4 x = *reinterpret_cast<const uint4*>(row + t);
      const T* const e = reinterpret_cast<const T*>(&x);
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = to_float(e[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = row && t + i < p.q.channels ? to_float(row[t + i]) : 0;
  };
  const auto fetch = [&](int t0) {
    eight(from_q, wide_q, t0 + part, next_q);
    eight(from_k, wide_k, t0 + part, next_k);
  };
  const auto put = [&](int stage) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      q[stage][part + i][line] = next_q[i], k[stage][part + i][line] = next_k[i];
  };

  float sum[kOwn][kOwn] = {};
  fetch(0);
  put(0);
  __syncthreads();
  for (int t0 = 0, stage = 0; t0 < p.q.channels; t0 += kDepth, stage ^= 1) {
    if (t0 + kDepth < p.q.channels) fetch(t0 + kDepth);
#pragma unroll
    for (int t = 0; t < kDepth; ++t) {
      float a[kOwn], c[kOwn];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float4*>(a + 4 * half) =
            *reinterpret_cast<const float4*>(&q[stage][t][half * 64 + own_row * 4]);
        *reinterpret_cast<float4*>(c + 4 * half) =
            *reinterpret_cast<const float4*>(&k[stage][t][half * 64 + own_col * 4]);
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j) sum[i][j] = fmaf(a[i], c[j], sum[i][j]);
    }
    if (t0 + kDepth < p.q.channels) put(stage ^ 1);
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = r0 + i / 4 * 64 + own_row * 4 + i % 4;
    const bool inside = row < rows;
    const int64_t seen = inside ? seen_by(p, query_of(p, row)) : 0;
    const int64_t at = int64_t(blockIdx.z) * rows + row;
    float top = -kInf;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t key_at = j0 + j / 4 * 64 + own_col * 4 + j % 4;
      const float x = sum[i][j] * p.scale;
      if (key_at < seen) p.logits[at * p.line + key_at] = x, top = x > top ? x : top;
    }
#pragma unroll
    for (int width = 8; width > 0; width /= 2) {
      const float other = __shfl_xor_sync(~0u, top, width);
      top = other > top ? other : top;
    }
    if (own_col == 0 && inside) atomicMax(&p.top[at], ordered(top));
  }
}

// Exponentials in place and one over each row's sum: one warp a row.
__global__ void sums_kernel(const __grid_constant__ Probe p) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= int64_t(p.count) * p.group * p.probes) return;
  const int64_t seen = seen_by(p, query_of(p, int(row % (p.group * p.probes))));
  const int head =
      int((p.first + row / (p.group * p.probes)) % p.k.heads * p.group + row / p.probes % p.group);
  const float sink = p.sink ? p.sink[head] : -kInf;
  float top = unordered(p.top[row]);
  top = top < sink ? sink : top;
  if (top == -kInf) top = 0;
  float* const x = p.logits + row * p.line + lane;
  constexpr int kAtOnce = 16;  // loads in flight
  float sum = 0;
  int64_t j = lane;
  for (; j + 32 * (kAtOnce - 1) < seen; j += 32 * kAtOnce) {
    float e[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) e[i] = x[j - lane + 32 * i];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      e[i] = exponential::of(e[i] - top);
      x[j - lane + 32 * i] = e[i];
      sum += e[i];
    }
  }
  for (; j < seen; j += 32) {
    const float e = exponential::of(x[j - lane] - top);
    x[j - lane] = e;
    sum += e;
  }
  sum = fold(sum) + exponential::of(sink - top);
  if (lane == 0) p.inverse[row] = sum == 0 ? 0 : __fdiv_rn(1.0f, sum);
}

// One block a head and kThreads keys, or as many offsets: the window of row i begins i keys later,
// so that a thread stays on one diagonal.
__global__ void __launch_bounds__(kThreads) columns_kernel(const __grid_constant__ Probe p) {
  const int64_t head = blockIdx.y;  // of [count, group]
  const int64_t pair = p.first + head / p.group;
  const int64_t bh = pair * p.group + head % p.group;
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = p.nq - p.probes, offset = p.offsets - 1 - c;
  const float* const rows = p.logits + head * p.probes * p.line;
  float vertical = 0, slash = 0;
  for (int i0 = 0; i0 < p.probes; i0 += p.part) {
    float down = 0, along = 0;
#pragma unroll 4
    for (int i = i0; i < min(i0 + p.part, p.probes); ++i) {
      const int64_t position = first + i + p.offset, seen = seen_by(p, first + i);
      const int64_t j = position - offset;
      const float* const row = rows + i * p.line;
      const float inverse = p.inverse[head * p.probes + i];
      if (c < seen) down += row[c] * inverse;
      if (c < p.offsets && j >= 0 && j < seen && j <= position) along += row[j] * inverse;
    }
    vertical += down, slash += along;
  }
  if (c < p.nk) p.vertical[bh * p.nk + c] = vertical;
  if (c < p.offsets) p.slash[bh * p.offsets + offset] = slash;
}

}  // namespace

void launch_probe(const Probe& p, void* stream) {
  const cudaStream_t s = cudaStream_t(stream);
  const int rows = p.group * p.probes;
  const dim3 tiles(unsigned((p.nk + kSide - 1) / kSide), unsigned((rows + kSide - 1) / kSide),
                   unsigned(p.count));
  if (p.k.bf16) {
    logits_kernel<__nv_bfloat16><<<tiles, kThreads, 0, s>>>(p);
  } else {
    logits_kernel<__half><<<tiles, kThreads, 0, s>>>(p);
  }
  sums_kernel<<<unsigned((int64_t(p.count) * rows + 3) / 4), 128, 0, s>>>(p);
  const int64_t wide = p.nk > p.offsets ? p.nk : p.offsets;
  const dim3 columns(unsigned((wide + kThreads - 1) / kThreads), unsigned(p.count * p.group));
  columns_kernel<<<columns, kThreads, 0, s>>>(p);
}

}  // namespace regard::cuda::stages
