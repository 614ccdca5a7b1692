// log2 phi of queries and keys: what weights of features are made of.
#include "cuda/sm80/finish.cuh"
#include "cuda/sm80/instance.h"
#include "cuda/sm80/rows.cuh"
#include "cuda/sm80/start.cuh"

namespace regard::cuda::sm80 {
namespace {

constexpr int kWarps = 4;

__device__ const char* row_of(const FeatureParams& p, int64_t n) {
  return row_at(p.from, n / p.n / p.heads, int(n / p.n % p.heads), int(n % p.n));
}
// The greatest log2 phi of a row: NaN where one is.
__device__ float top_of(float top, bool nan) {
  return nan ? __builtin_nanf("") : top == -kInf ? 0 : top;
}

// One warp a row: log2 phi and the greatest of it.
template <class T>
__global__ void features_kernel(const __grid_constant__ FeatureParams p) {
  constexpr float kLog2e = 1.4426950408889634f;
  __shared__ float rows[kWarps][576];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t n = int64_t(blockIdx.x) * kWarps + warp;
  if (n >= p.rows) return;
  const char* const from = row_of(p, n);
  float* const x = rows[warp];
  float most = -kInf, sum = 0;
  for (int c = lane; c < p.d; c += 32) {
    x[c] = to_float(reinterpret_cast<const T*>(from)[c]);
    most = fmaxf(most, x[c]);
  }
  for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
  __syncwarp();
  for (int c = lane; c < p.d; c += 32) sum += expf(x[c] - most);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  float top = -kInf;
  bool nan = false;
  for (int r = lane; r < p.m; r += 32) {
    float e;
    if (p.kind == WeightKind::softmax) {
      e = (x[r] - most) * kLog2e - log2f(sum);
    } else if (p.kind == WeightKind::elu) {
      e = (x[r] > 0 ? log1pf(x[r]) : x[r]) * kLog2e;
    } else {
      e = x[r] < 0 ? -kInf : log2f(x[r]);  // NaN stays
    }
    p.to[n * p.m + r] = e;
    top = fmaxf(top, e), nan |= e != e;
  }
  for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  nan = __any_sync(~0u, nan);
  if (lane == 0) p.top[n] = top_of(top, nan);
}

// Random features of 64 rows: products with 128 directions at a time, a thread 8 rows by twice 4
// directions.
constexpr int kRows = 64, kLines = 128, kDeep = 32;
template <class T>
__global__ void __launch_bounds__(128) random_kernel(const __grid_constant__ FeatureParams p) {
  __shared__ __align__(16) float x[kDeep][kRows + 4];
  __shared__ __align__(16) float lines[kDeep][kLines + 4];
  __shared__ float squares[kRows];
  const int64_t n0 = int64_t(blockIdx.x) * kRows;
  const int own = threadIdx.x / 2, part = threadIdx.x % 2 * 16;  // of loads
  const int row0 = threadIdx.x / 16 * 8, line0 = threadIdx.x % 16 * 4;
  const char* const from = n0 + own < p.rows ? row_of(p, n0 + own) : nullptr;
  float square = 0, top[8];
  bool nan[8] = {};
  for (float& t : top) t = -kInf;
  for (int r0 = 0; r0 < p.m; r0 += kLines) {
    float dot[8][8] = {};
    for (int c0 = 0; c0 < p.d; c0 += kDeep) {
      __syncthreads();
#pragma unroll
      for (int c = part; c < part + 16; c += 2) {
        float2 v = make_float2(0, 0);
        if (from && c0 + c < p.d) v = pair_at<T>(from, c0 + c);
        x[c][own] = v.x, x[c + 1][own] = v.y;
        if (r0 == 0) square = fmaf(v.y, v.y, fmaf(v.x, v.x, square));
      }
#pragma unroll 8
      for (int c = 0; c < kDeep; ++c) {
        const int r = r0 + int(threadIdx.x);
        lines[c][threadIdx.x] = c0 + c < p.d && r < p.m ? p.directions[(c0 + c) * p.m + r] : 0;
      }
      __syncthreads();
#pragma unroll 4
      for (int c = 0; c < kDeep; ++c) {
        float a[8], b[8];
#pragma unroll
        for (int e = 0; e < 8; e += 4) {
          *reinterpret_cast<float4*>(a + e) = *reinterpret_cast<float4*>(&x[c][row0 + e]);
          *reinterpret_cast<float4*>(b + e) =
              *reinterpret_cast<float4*>(&lines[c][line0 + e * (kLines / 8)]);
        }
#pragma unroll
        for (int u = 0; u < 8; ++u)
#pragma unroll
          for (int e = 0; e < 8; ++e) dot[u][e] = fmaf(b[e], a[u], dot[u][e]);
      }
    }
    if (r0 == 0) {
      square += __shfl_xor_sync(~0u, square, 1);
      squares[own] = square;
      __syncthreads();
    }
#pragma unroll
    for (int u = 0; u < 8; ++u)
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int r = r0 + line0 + e % 4 + e / 4 * (kLines / 2);
        const float y = p.factor * dot[u][e] - p.half * squares[row0 + u] + p.offset;
        if (r >= p.m || n0 + row0 + u >= p.rows) continue;
        p.to[(n0 + row0 + u) * p.m + r] = y;
        top[u] = fmaxf(top[u], y), nan[u] |= y != y;
      }
  }
#pragma unroll
  for (int u = 0; u < 8; ++u) {
    const unsigned same = 0xffffu << (threadIdx.x & 16);
    for (int d = 8; d > 0; d /= 2) top[u] = fmaxf(top[u], __shfl_xor_sync(~0u, top[u], d));
    const bool any = (__ballot_sync(~0u, nan[u]) & same) != 0;
    if (threadIdx.x % 16 == 0 && n0 + row0 + u < p.rows) p.top[n0 + row0 + u] = top_of(top[u], any);
  }
}

}  // namespace

void launch_features(const FeatureParams& p, void* stream) {
  const bool random = p.kind == WeightKind::random, bf16 = p.type == Type::bf16;
  const int rows = random ? kRows : kWarps;
  const dim3 blocks(unsigned((p.rows + rows - 1) / rows));
  if (random) {
    start<FeatureParams>(bf16 ? random_kernel<__nv_bfloat16> : random_kernel<__half>, blocks, 128,
                         p, stream);
  } else {
    start<FeatureParams>(bf16 ? features_kernel<__nv_bfloat16> : features_kernel<__half>, blocks,
                         32 * kWarps, p, stream);
  }
}

}  // namespace regard::cuda::sm80
