// Lists of tiles and single keys from what was chosen by token. Layer: stages.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "stages/estimate.h"

namespace regard::lists {

// Raises the first `columns` keys and the `diagonals` nearest offsets to +inf.
void force(estimate::VerticalSlash& s, int64_t columns, int64_t diagonals);

// One keep-set as two disjoint covers: whole tiles, and the keys that are left.
struct TilesAndColumns {
  int bq = 0, bk = 0;
  TileBits tiles;     // [batch, heads, rows, cols]
  IndexList columns;  // the same rows, single keys
};

// The tokens that MInference's index builder and kernel read for the best `columns` keys and the
// best `diagonals` offsets. For 64 queries at positions [e - 64, e):
//  - offset o stands for the 64 keys [max(e - o, 64) - 64, max(e - o, 64)); offsets are walked from
//    far to near; a range that starts within 64 keys of the last one's end lengthens it by 64,
//    otherwise it opens a new one; offsets of e and more are skipped;
//  - a chosen key that lies in no range but below the next one is read by itself; keys past the
//  last
//    range are dropped.
// Causality comes on top. Both budgets are cut to the keys that the last query sees; ties go to the
// lower key and the nearer diagonal.
TilesAndColumns vertical_slash(const Ctx& ctx, const Problem& p, const estimate::VerticalSlash& s,
                               int64_t columns, int64_t diagonals);

// Single keys that make the band [-left, right] with its first `sink` keys into Longformer's
// pattern, as one list a query: tokens of `global` (positions; those below `sink` are global as
// well) see every key and are seen by every query. left, right: -1 is unlimited.
IndexList global_tokens(const Problem& p, const Window& band, const std::vector<int64_t>& global);

// Positions in a tensor of any shape; Error unless each is a whole number in [0, nk).
std::vector<int64_t> positions(const Problem& p, const Tensor& tokens);

}  // namespace regard::lists
