// The one selector: scores in, keep-set out (spec: every "top-p" is this with other options).
// Layer: stages.
#pragma once
#include <functional>
#include <limits>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "stages/estimate.h"

namespace regard {

struct Selector {
  enum class Cut {
    top_k,      // the `amount` best
    coverage,   // best first until their sum reaches amount * total
    threshold,  // every score > amount
  };
  enum class Scope { row, head, all };  // what competes: one row, a head's rows, everything
  enum class Round { floor, ceil };     // top_k: of a fractional amount
  Cut cut = Cut::coverage;
  double amount = 0.9;
  const std::vector<double>* amounts = nullptr;  // one a competition, instead of `amount`
  Scope scope = Scope::row;
  bool keep_crossing = true;  // coverage: the item that reaches the goal is kept
  // Always kept. If they count, they are taken first: coverage starts from their sum, top_k and the
  // limits below from their number. If not, the cut is made as if nothing were forced.
  const TileBits* forced = nullptr;
  bool forced_counts = true;
  int64_t extra = 0;  // coverage with a goal above 0: items kept beyond the cut
  int64_t min_count = 0;
  int64_t max_count = std::numeric_limits<int64_t>::max();  // does not drop forced items
  Round round = Round::floor;
  // Heads without any of these tiles keep nothing and cost nothing. [batch, heads, ..]
  const TileBits* heads = nullptr;
};

// Ties: higher score first, then lower index (batch, head, row, column), so that every device
// agrees to the bit. NaN counts as -inf. Scores of -inf are never kept unless forced, and add
// nothing to sums. Sums are in f64, forced items first (by index), then in the sorted order; the
// total is summed by index.
TileBits select(const Ctx& ctx, const BlockScores& scores, const Selector& how);

// Scores with the tiles of `bits` (a batch or head axis of 1 broadcasts) set to -inf.
BlockScores without(BlockScores scores, const TileBits& bits);

// Row by row exp(s - max) / sum; -inf becomes 0, a row of -inf stays.
BlockScores row_softmax(BlockScores scores);

// Indices of the `k` best of `n` scores, ascending; same rules, so fewer where scores are -inf.
std::vector<int64_t> top_indices(const float* scores, int64_t n, int64_t k);

// Amounts for the selector, one a row of tiles.
//
// ProxyAttn (arXiv 2509.24745): with beta_h the least share of key tiles that cover `gamma` of the
// probe's column mass in head h, ceil(beta_h * tiles that the row sees).
std::vector<double> covering_budgets(const Inputs& x, const estimate::VerticalSlash& probe, int bq,
                                     int bk, double gamma);
// One row of a top_k: sets the bits of what is kept. forced: bits, or nothing.
void select_row(const float* scores, int64_t cols, const uint64_t* forced, const Selector& how,
                uint64_t* out);

namespace estimate {
// select(compressed(..), best), a few rows at a time, so that the scores of all are never kept.
// best: top_k by rows, with forced tiles (if any) for all heads alike.
TileBits best_compressed(const Ctx& ctx, const Inputs& x, const Compression& how,
                         const Selector& best);
}  // namespace estimate

// AdaSpa (arXiv 2502.21079): kept tiles a row by head. With n the heads whose `kept` tiles hold
// more than 0.8 of the mass, at most half of them, the n best get sparsity (1 + s) / 2, the n worst
// (3 s - 1) / 2 (not below 0), the others s.
std::vector<double> adaptive_budgets(const BlockScores& mass, const TileBits& kept,
                                     double sparsity);

// Forced sets, for a problem cut into tiles bq x bk: batch and head axis 1 (shared).
namespace keep {
TileBits none(const Problem& p, int bq, int bk);
TileBits sink(const Problem& p, int bq, int bk, int64_t tokens);  // tiles with the first tokens
TileBits diagonal(const Problem& p, int bq, int bk);  // tiles holding some query's own position
TileBits causal(const Problem& p, int bq, int bk);    // tiles with at least one pair pos_k <= pos_q
TileBits all(const Problem& p, int bq, int bk);
// Whole rows of tiles whose first query sits before `position`.
TileBits rows_before(const Problem& p, int bq, int bk, int64_t position);
// Tile (r, c) of head h is kept where rule(h, own, c) holds for a key tile `own` that holds the own
// position of some query of row r. Rows are cut from the strip's first query on, so where that lies
// inside a key tile a row has two of them. Before the first key `own` is negative. `heads` is 1
// (shared), kv_heads or heads.
using TileRule = std::function<bool(int64_t head, int64_t own, int64_t c)>;
TileBits where(const Problem& p, int bq, int bk, int64_t heads, const TileRule& rule);
// Columns of key tiles, or rows of query tiles, whose value is not above `limit`; NaN is not.
// values: [batch, kv_heads (columns) or heads (rows), 1, tiles].
TileBits columns_not_above(const Problem& p, int bq, int bk, const BlockScores& values,
                           double limit);
TileBits rows_not_above(const Problem& p, int bq, int bk, const BlockScores& values, double limit);
// Everything of the heads whose value, [batch, heads, 1, 1], lies below `limit`.
TileBits heads_below(const Problem& p, int bq, int bk, const BlockScores& values, double limit);
// The same bits in columns [by, by + bits.cols) of `cols`.
TileBits moved(const TileBits& bits, int64_t cols, int64_t by);
// From a tensor [1|batch, 1|heads, rows, any] of tile columns; -1 is none.
TileBits listed(const Problem& p, int bq, int bk, const Tensor& columns);
// From a tensor [1|batch, 1|heads, rows, cols]: everything but 0 is kept.
TileBits given(const Problem& p, int bq, int bk, const Tensor& mask);
}  // namespace keep

}  // namespace regard
