// log2 phi of queries and keys: what weights of features are made of.
#include "cuda/sm80/finish.cuh"
#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {
namespace {

constexpr int kWarps = 4;

// One warp a row: log2 phi and the greatest of it.
template <class T>
__global__ void features_kernel(const __grid_constant__ FeatureParams p) {
  constexpr float kLog2e = 1.4426950408889634f;
  __shared__ float rows[kWarps][576];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t n = int64_t(blockIdx.x) * kWarps + warp;
  if (n >= p.rows) return;
  const int i = int(n % p.n), h = int(n / p.n % p.heads);
  const int64_t b = n / p.n / p.heads;
  const char* from = p.from.data + h * p.from.head;
  from += p.pages ? p.pages[b * p.pages_row + (i >> p.page_shift)] * p.page +
                        (i & p.page_mask) * p.from.token
                  : b * p.from.batch + i * p.from.token;
  float* const x = rows[warp];
  float most = -kInf, sum = 0, squares = 0;
  for (int c = lane; c < p.d; c += 32) {
    x[c] = to_float(reinterpret_cast<const T*>(from)[c]);
    most = fmaxf(most, x[c]), squares = fmaf(x[c], x[c], squares);
  }
  for (int d = 16; d > 0; d /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    squares += __shfl_xor_sync(~0u, squares, d);
  }
  __syncwarp();
  for (int c = lane; c < p.d; c += 32) sum += expf(x[c] - most);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  float top = -kInf;
  for (int r = lane; r < p.m; r += 32) {
    float e;
    if (p.kind == WeightKind::random) {
      float dot = 0;
      for (int c = 0; c < p.d; ++c) dot = fmaf(p.directions[c * p.m + r], x[c], dot);
      e = p.factor * dot - p.half * squares + p.offset;
    } else if (p.kind == WeightKind::softmax) {
      e = (x[r] - most) * kLog2e - log2f(sum);
    } else if (p.kind == WeightKind::elu) {
      e = (x[r] > 0 ? log1pf(x[r]) : x[r]) * kLog2e;
    } else {
      e = x[r] < 0 ? -kInf : log2f(x[r]);  // NaN stays
    }
    p.to[n * p.m + r] = e;
    top = fmaxf(top, e);
  }
  for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  if (lane == 0) p.top[n] = top == -kInf ? 0 : top;
}

}  // namespace

void launch_features(const FeatureParams& p, void* stream) {
  const unsigned blocks = unsigned((p.rows + kWarps - 1) / kWarps);
  if (p.type == Type::bf16) {
    features_kernel<__nv_bfloat16><<<blocks, 32 * kWarps, 0, cudaStream_t(stream)>>>(p);
  } else {
    features_kernel<__half><<<blocks, 32 * kWarps, 0, cudaStream_t(stream)>>>(p);
  }
}

}  // namespace regard::cuda::sm80
