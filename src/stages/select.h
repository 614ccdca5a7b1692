// The one selector: scores in, keep-set out (spec: every "top-p" is this with other options).
// Layer: stages.
#pragma once
#include <limits>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "stages/estimate.h"

namespace regard {

struct Selector {
  enum class Cut {
    top_k,      // the `amount` best
    coverage,   // until the sum reaches amount * total
    threshold,  // every score > amount
  };
  enum class Scope { row, head, all };  // what competes: one row, a head's rows, everything
  enum class Round { floor, ceil };     // of a fractional count
  Cut cut = Cut::coverage;
  double amount = 0.9;
  Scope scope = Scope::row;
  bool keep_crossing = true;         // coverage: the item that reaches the goal is kept
  const TileBits* forced = nullptr;  // always kept
  bool forced_counts = true;         // their score (coverage) or number (top_k) counts first
  int64_t min_count = 0;
  int64_t max_count = std::numeric_limits<int64_t>::max();
  Round round = Round::floor;
};

// Ties: higher score first, then lower index (batch, head, row, column), so that every device
// agrees to the bit. NaN counts as -inf. Scores of -inf are never kept unless forced. Sums are in
// f64 in the sorted order.
TileBits select(const Ctx& ctx, const BlockScores& scores, const Selector& how);

// Indices of the `k` best of `n` scores, ascending; same tie rule; items of +inf come first.
std::vector<int64_t> top_indices(const float* scores, int64_t n, int64_t k);

// Forced sets, for a problem cut into tiles bq x bk: head axis 1 (shared).
namespace keep {
TileBits none(const Problem& p, int bq, int bk);
TileBits sink(const Problem& p, int bq, int bk, int64_t tokens);  // tiles with the first tokens
TileBits diagonal(const Problem& p, int bq, int bk);  // tiles holding some query's own position
TileBits causal(const Problem& p, int bq, int bk);    // tiles with at least one pair pos_k <= pos_q
}  // namespace keep

}  // namespace regard
