// Which blocks of keys a row has by their sums and which pair by pair. Layer: cuda.
#pragma once
#include "cuda/sm80/params.h"

namespace regard::cuda::sm80 {

// The bits of one tile of rows, for head `h` of `heads`.
__device__ inline const uint32_t* whole_bits(const WholeBlocks& w, int64_t b, int h, int heads,
                                             int tile) {
  const int64_t list = b * w.batch + int64_t(h) * w.heads / heads;
  return w.bits + (list * w.tiles + tile) * w.words;
}

// Whether a row's (or a key's) greatest log2 phi lets its sums be formed: finite, and so small
// that whole numbers of its size are exact.
__device__ inline bool is_steady(float top) { return fabsf(top) <= 0x1p22f; }

}  // namespace regard::cuda::sm80
