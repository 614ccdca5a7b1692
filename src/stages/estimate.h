// Estimators: cheap scores for tiles or tokens. Layer: stages. Bodies: src/stages/estimate/*.cc.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"

namespace regard {

// Scores of tiles [batch, heads, rows, cols]; a tile no query may see is exactly 0 (after a
// softmax) or -inf (raw), as each estimator states.
struct BlockScores {
  int64_t batch = 0, heads = 0, rows = 0, cols = 0;
  std::vector<float> s;
  const float* row(int64_t b, int64_t h, int64_t r) const {
    return &s[((b * heads + h) * rows + r) * cols];
  }
  float* row(int64_t b, int64_t h, int64_t r) { return &s[((b * heads + h) * rows + r) * cols]; }
};

namespace estimate {

// A random number in [0, 1) a tile, the same for all batch items: random_uniform(seed, head, own, c)
// with `own` the key tile of the row's first query (select.h, keep::where).
BlockScores random(const Problem& p, int bq, int bk, int64_t seed);

// XAttention (arXiv 2503.16428, algorithm 1): strided antidiagonal sums, softmax over key groups,
// summed to tiles of `block` x `block`. Causal where the inputs are.
BlockScores antidiagonal(const Ctx& ctx, const Inputs& x, int block, int stride);

// Mean of queries and keys over tiles, scaled dot; raw logits, -inf where no pair is causal.
BlockScores pooled_means(const Ctx& ctx, const Inputs& x, int bq, int bk);

// Column and diagonal sums of the exact probabilities of the strip's last `last` queries
// (MInference 1.0, arXiv 2407.02490): vertical[b,h,j] over keys j; slash[b,h,o] over offsets o =
// pos_q - pos_k.
struct VerticalSlash {
  int64_t batch = 0, heads = 0;
  int64_t nk = 0;
  int64_t offsets = 0;          // max(nk, offset + nq): nk unless queries sit past the last key
  std::vector<float> vertical;  // [batch, heads, nk]
  std::vector<float> slash;     // [batch, heads, offsets]
};
VerticalSlash vertical_slash(const Ctx& ctx, const Inputs& x, int last);

// Attention that every tile gets: the sum of exact probabilities over its pairs, with the model's
// score and norm. A row of the result sums to the queries of the tile row that see any key (less
// what a sink took). The yardstick for estimators and the pooled attention maps of the report;
// costs a QK product.
BlockScores block_mass(const Ctx& ctx, const Inputs& x, int bq, int bk);

}  // namespace estimate
}  // namespace regard
