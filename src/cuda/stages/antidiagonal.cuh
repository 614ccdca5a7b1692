// What the two kernels of antidiagonal products share. Layer: cuda (device code).
#pragma once
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {

// Key groups that query group g sees.
__device__ inline int visible(const Antidiagonal& p, int64_t g) {
  if (!p.causal) return p.k_groups;
  const int64_t last = p.offset + min((g + 1) * p.stride, p.nq) - 1;
  return last < 0 ? 0 : int(min(int64_t(p.k_groups), last / p.stride + 1));
}

// From logits[row * pitch + column] of groups [g0, end) and `tiles` tiles from group j0 on to the
// maximum and the sum of exponentials of each, by `threads` threads.
__device__ inline void finish_tiles(const Antidiagonal& p, const float* logits, int rows, int pitch,
                                    int64_t bh, int g0, int end, int j0, int tiles, int thread,
                                    int threads) {
  for (int item = thread; item < rows * tiles; item += threads) {
    const int row = item % rows, tile = item / rows, g = g0 + row;
    if (g >= end) continue;
    const int begin = j0 + tile * p.per_tile, live = min(p.per_tile, visible(p, g) - begin);
    if (live <= 0) continue;
    const float* const x = &logits[row * pitch + tile * p.per_tile];
    float top = -kInf, sum = 0;
    for (int j = 0; j < live; ++j) top = x[j] > top ? x[j] : top;
    const float shift = top == -kInf ? 0 : top;
    for (int j = 0; j < live; ++j) sum += falling_exponential(x[j] - shift);
    p.tiles[(bh * p.groups + g - p.first) * p.cols + begin / p.per_tile] = make_float2(top, sum);
  }
}

}  // namespace regard::cuda::stages
