// What the kernels of linear attention by sums see. Plain data, host and device. Layer: cuda.
#pragma once
#include "cuda/sm80/params.h"

namespace regard::cuda::sm80 {

// Sums of phi(k) v^T over blocks of keys, added up for tiles of rows and multiplied by phi(q). Of
// every block and feature r the greatest log2 phi, rounded up, is `shift`, and the sums are of
// 2^(log2 phi - shift): whole shifts make every later scale a power of two, hence exact.
struct StateParams {
  WholeBlocks whole;
  PagedRows v;
  Type type = Type::bf16;
  int32_t batch = 1, heads = 1, kv_heads = 1, sets = 1;  // sets of tiles' sums: kv_heads or heads
  int32_t nq = 0, nk = 0, dv = 0, m = 0, blocks = 0;
  int32_t first = 0, count = 0, chunk = 0;  // features at once: [first, first + count) of chunk
  const float *q_features = nullptr, *k_features = nullptr, *q_top = nullptr, *k_top = nullptr;
  // Blocks are padded to whole words.
  int32_t* shift = nullptr;       // [B kv_heads][m][blocks padded]; kNoShift: nothing there
  float* sum = nullptr;           // of phi, the same
  uint8_t* loose = nullptr;       // [B kv_heads][blocks padded]: is read pair by pair all the same
  int32_t* tile_shift = nullptr;  // [B sets][tiles][m]: the greatest of the tile's blocks
  float* tile_sum = nullptr;
  float* states = nullptr;                // [B kv_heads][blocks][chunk][dv]
  float* tile_states = nullptr;           // [B sets][tiles][chunk][dv]
  float *acc = nullptr, *head = nullptr;  // Partials [B heads nq][dv], {max in log2, sum}
};
constexpr int32_t kNoShift = -(1 << 30);

}  // namespace regard::cuda::sm80
