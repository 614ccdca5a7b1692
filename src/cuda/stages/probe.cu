// The last queries' probabilities down columns and along diagonals; the arithmetic is that of
// stages/estimate/vertical_slash.cc and stages/rows.cc.
#include <type_traits>

#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kSide = 128, kDepth = 16, kOwn = 8, kThreads = 256;
constexpr int kAtOnce = 16;  // loads of a thread in flight

__device__ int64_t query_of(const Probe& p, int row) { return p.nq - p.probes + row % p.probes; }
// Keys that a probe sees.
__device__ int64_t seen_by(const Probe& p, int64_t query) {
  if (!p.causal) return p.nk;
  return max(int64_t(0), min(p.nk, query + p.offset + 1));
}

// Logits and their maxima: 128 rows (probes of all heads of a KV head) x 128 keys a block, 32 x 64
// a warp, 8 x 8 a thread in squares of four; sums over channels in order, fused.
template <class T, bool kWide>
__global__ void __launch_bounds__(kThreads, 2) logits_kernel(const __grid_constant__ Probe p) {
  __shared__ __align__(16) float q[2][kDepth][kSide + 4], k[2][kDepth][kSide + 4];
  const int rows = p.group * p.probes, r0 = blockIdx.y * kSide;
  const int64_t j0 = int64_t(blockIdx.x) * kSide;
  const int kv_heads = p.k.heads, pair = p.first + blockIdx.z;
  const int64_t b = pair / kv_heads;
  const int kv = pair % kv_heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // Of the first square; the others are 16 rows and 32 columns further.
  const int own_row = warp / 2 * 32 + lane / 8 * 4, own_col = warp % 2 * 64 + lane % 8 * 4;

  // A thread fetches 8 channels of one query row and of one key.
  const int line = threadIdx.x / 2, part = threadIdx.x % 2 * 8;
  const bool query = r0 + line < rows, key = j0 + line < p.nk;
  const T* const from_q =
      query ? row_of<T>(p.q, b, kv * p.group + (r0 + line) / p.probes, query_of(p, r0 + line))
            : nullptr;
  const T* const from_k = key ? row_of<T>(p.k, b, kv, j0 + line) : nullptr;
  uint4 next_q, next_k;
  const auto fetch = [&](int t0) {
    next_q = load8<T, kWide>(from_q, t0 + part, p.q.channels);
    next_k = load8<T, kWide>(from_k, t0 + part, p.q.channels);
  };
  const auto put = [&](int stage) {
    float x[8];
    to_floats<T>(next_q, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) q[stage][part + i][line] = x[i];
    to_floats<T>(next_k, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) k[stage][part + i][line] = x[i];
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
            *reinterpret_cast<const float4*>(&q[stage][t][own_row + half * 16]);
        *reinterpret_cast<float4*>(c + 4 * half) =
            *reinterpret_cast<const float4*>(&k[stage][t][own_col + half * 32]);
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
    const int row = r0 + own_row + i / 4 * 16 + i % 4;
    const bool inside = row < rows;
    // Columns of this block that the row sees.
    const int seen = inside ? int(min(int64_t(kSide), seen_by(p, query_of(p, row)) - j0)) : 0;
    const int64_t at = int64_t(blockIdx.z) * rows + row;
    float top = -kInf;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      sum[i][j] *= p.scale;
      if (own_col + j / 4 * 32 + j % 4 < seen) top = fmaxf(top, sum[i][j]);
    }
    // What lies behind the last key seen is room up to the line's end, and never read.
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (own_col + half * 32 < seen)
        *reinterpret_cast<float4*>(&p.logits[at * p.line + j0 + own_col + half * 32]) =
            *reinterpret_cast<const float4*>(&sum[i][4 * half]);
#pragma unroll
    for (int width = 4; width > 0; width /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, width));
    if (lane % 8 == 0 && seen > 0) atomicMax(&p.top[at], ordered(top));
  }
}

// Of each row what is subtracted from its logits, and one over the sum of their exponentials: one
// warp a row.
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
  const float* const x = p.logits + row * p.line + lane;
  float sum = 0;
  int64_t j = lane;
  for (; j + 32 * (kAtOnce - 1) < seen; j += 32 * kAtOnce) {
    float e[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) e[i] = x[j - lane + 32 * i];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) sum += falling_exponential(e[i] - top);
  }
  for (; j < seen; j += 32) sum += falling_exponential(x[j - lane] - top);
  sum = fold(sum) + exponential::of(sink - top);
  if (lane == 0) p.norms[row] = make_float2(top, sum == 0 ? 0 : __fdiv_rn(1.0f, sum));
}

// One block a head and kThreads keys, or as many offsets: the window of row i begins i keys later,
// so that a thread stays on one diagonal, and lies almost where the block's columns do. So most
// exponentials are made once, for both.
__global__ void __launch_bounds__(kThreads, 8) columns_kernel(const __grid_constant__ Probe p) {
  __shared__ float made[kProbePart][kThreads];
  __shared__ float2 norms[kProbePart];
  const int64_t head = blockIdx.y;  // of [count, group]
  const int64_t pair = p.first + head / p.group;
  const int64_t bh = pair * p.group + head % p.group;
  const int own = int(threadIdx.x), c0 = int(blockIdx.x) * kThreads, c = c0 + own;
  // Of row 0: keys that it sees (it may be fewer than none), and the one on the diagonal.
  constexpr int64_t kFar = 1 << 30;
  const auto near = [](int64_t x) { return int(max(-kFar, min(kFar, x))); };
  const int64_t position = p.nq - p.probes + p.offset;
  const int seen = near(p.causal ? position + 1 : p.nk), nk = int(p.nk);
  const int diagonal = near(position - (p.offsets - 1 - c));
  float vertical = 0, slash = 0;
  for (int i0 = 0; i0 < p.probes; i0 += kProbePart) {
    const int count = min(kProbePart, p.probes - i0);
    const float* const part = p.logits + (head * p.probes + i0) * p.line;
    const auto keys = [&](int i) { return min(seen + (p.causal ? i0 + i : 0), nk); };
    if (own < count) norms[own] = p.norms[head * p.probes + i0 + own];
    __syncthreads();
    float down = 0, along = 0;
    const auto add_down = [&](auto all) {
      constexpr bool whole = decltype(all)::value;  // every row sees every column
      float x[kProbePart];
      const float* from = part + c;
#pragma unroll
      for (int i = 0; i < kProbePart; ++i, from += p.line)
        x[i] = whole || (i < count && c < keys(i)) ? *from : 0;
#pragma unroll
      for (int i = 0; i < kProbePart; ++i) {
        if (!whole && i >= count) break;
        const float e = falling_exponential(x[i] - norms[i].x);
        made[i][own] = e;
        if (whole || c < keys(i)) down += e * norms[i].y;
      }
    };
    if (count == kProbePart && c0 + kThreads <= keys(0)) {
      add_down(std::true_type());
    } else {
      add_down(std::false_type());
    }
    __syncthreads();
    const int j0 = diagonal + i0, at = j0 - c0;  // of row 0 of the part
    if (at >= 0 && at + kProbePart <= kThreads && count == kProbePart && c < p.offsets && j0 >= 0 &&
        j0 + kProbePart <= keys(0)) {
#pragma unroll
      for (int i = 0; i < kProbePart; ++i) along += made[i][at + i] * norms[i].y;
    } else if (c < p.offsets) {
      for (int i = 0; i < count; ++i) {
        const int j = j0 + i;
        if (j < 0 || j >= keys(i)) continue;
        const float e = unsigned(at + i) < unsigned(kThreads)
                            ? made[i][at + i]
                            : falling_exponential(part[i * p.line + j] - norms[i].x);
        along += e * norms[i].y;
      }
    }
    __syncthreads();
    vertical += down, slash += along;
  }
  if (c < p.nk) p.vertical[bh * p.nk + c] = vertical;
  if (c < p.offsets) p.slash[bh * p.offsets + p.offsets - 1 - c] = slash;
}

template <bool kWide>
void launch_logits(const Probe& p, dim3 tiles, cudaStream_t stream) {
  if (p.k.bf16) {
    logits_kernel<__nv_bfloat16, kWide><<<tiles, kThreads, 0, stream>>>(p);
  } else {
    logits_kernel<__half, kWide><<<tiles, kThreads, 0, stream>>>(p);
  }
}

}  // namespace

void launch_probe(const Probe& p, void* stream) {
  const cudaStream_t s = cudaStream_t(stream);
  const int rows = p.group * p.probes;
  const dim3 tiles(unsigned((p.nk + kSide - 1) / kSide), unsigned((rows + kSide - 1) / kSide),
                   unsigned(p.count));
  wide(p.q) && wide(p.k) ? launch_logits<true>(p, tiles, s) : launch_logits<false>(p, tiles, s);
  sums_kernel<<<unsigned((int64_t(p.count) * rows + 3) / 4), 128, 0, s>>>(p);
  const int64_t wide = p.nk > p.offsets ? p.nk : p.offsets;
  const dim3 columns(unsigned((wide + kThreads - 1) / kThreads), unsigned(p.count * p.group));
  columns_kernel<<<columns, kThreads, 0, s>>>(p);
}

}  // namespace regard::cuda::stages
