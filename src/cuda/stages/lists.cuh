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

}  // namespace regard::cuda::stages
