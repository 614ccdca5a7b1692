// What list kernels share. Layer: cuda (device code).
#pragma once
#include "cuda/stages/common.cuh"
#include "regard/tiles.h"

namespace regard::cuda::stages {

// Keys [0, most) that some query of a row of tiles reads, [0, least) that every one does.
struct RowKeys {
  int64_t least, most;
};
__device__ inline RowKeys row_keys(const Seen& s, int64_t row, int bq) {
  if (!s.causal) return {s.nk, s.nk};
  const int64_t first = row * bq, last = min(first + bq, s.nq) - 1;
  return {max(int64_t(0), min(s.nk, first + s.offset + 1)),
          max(int64_t(0), min(s.nk, last + s.offset + 1))};
}

// A column whose keys end before `end`.
__device__ inline uint32_t entry(uint32_t column, int64_t end, const RowKeys& keys) {
  return end <= keys.least ? column : column | IndexList::kBoundary;
}

// Sum of `x` over the lanes up to this one.
template <class T>
__device__ inline T up_to_in_warp(T x) {
#pragma unroll
  for (int width = 1; width < 32; width *= 2) {
    const T y = __shfl_up_sync(~0u, x, width);
    if (int(threadIdx.x % 32) >= width) x += y;
  }
  return x;
}

// Sum of `x` over the threads before this one; `total` of all kThreads of a block.
template <int kThreads, class T>
__device__ inline T before_in_block(T x, T& total) {
  static_assert(kThreads == 1024);  // as many warps as a warp has lanes
  __shared__ T warps[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T sum = up_to_in_warp(x);
  __syncthreads();  // the sums before have been read
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  const T all = up_to_in_warp(warps[lane]);
  total = __shfl_sync(~0u, all, 31);
  const T ahead = __shfl_sync(~0u, all, (warp + 31) % 32);
  return (warp > 0 ? ahead : 0) + sum - x;
}

}  // namespace regard::cuda::stages
