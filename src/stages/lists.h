// Lists of tiles and single keys from what was chosen by token. Layer: stages.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "stages/estimate.h"
#include "stages/select.h"

namespace regard::lists {

// Raises the first `columns` keys and the `diagonals` nearest offsets to +inf.
void force(estimate::VerticalSlash& s, int64_t columns, int64_t diagonals);

// One keep-set as two disjoint covers: whole tiles, and the keys that are left.
struct TilesAndColumns {
  int bq = 0, bk = 0;
  TileBits tiles;   // [batch, heads, rows, cols]
  ListRef columns;  // the same rows, single keys
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

// FlexPrefill (arXiv 2502.20766): the tiles of the best key tiles and of the best diagonals of
// tiles. As many of each as the tokens (columns or offsets) that the probe counted fill, plus one,
// and at least `least`; the first key tile and the nearest diagonal come first. smallest: as if it
// had counted none.
TileBits vertical_slash_tiles(const Ctx& ctx, const Inputs& x, const estimate::ProbeTiles& s,
                              int64_t least, bool smallest);

// Columns and diagonals of tiles as bits, for each head. Bit c of its `words` is column c; bit
// diagonals - 1 - d of its `turned_words` is diagonal d, so that shifted down by diagonals - 1 -
// own, bit c is that of diagonal own - c.
struct TileStripes {
  int64_t block = 0, diagonals = 0, words = 0, turned_words = 0;
  std::vector<uint64_t> columns, turned;
};

// Single keys from one ascending list for each (batch, head, row of `bq` queries).
IndexList keys_of(const Problem& p, int64_t batch, int64_t heads, int bq,
                  const std::vector<std::vector<uint32_t>>& keys);

// Keys [begin, end).
struct Range {
  int64_t begin, end;
};
using Ranges = std::vector<Range>;

// Appends runs of `width` keys that begin at first, first + step, .. below end.
void every(int64_t first, int64_t width, int64_t step, int64_t end, Ranges* out);
// Appends the window [at - side, at + side] of every stretch of `size` keys below end, cut to the
// stretch.
void in_every(int64_t at, int64_t side, int64_t size, int64_t end, Ranges* out);

// What a query reads, by its position on the keys' axis: appends ranges in any order, which may
// overlap, be empty or reach past both ends.
using PositionRule = std::function<void(int64_t head, int64_t position, Ranges* out)>;
// The same where batch items differ.
using RowRule = std::function<void(int64_t b, int64_t head, int64_t position, Ranges* out)>;

// Exactly the pairs of a rule, cut to causality where the inputs are causal: tiles of 64 x 64 that
// every query of the tile row reads whole, and single keys for the rest. `heads` is 1 (shared),
// kv_heads or heads; the rule's `head` counts those, and `batch` is 1 (shared) or the problem's.
Plan by_position(const Ctx& ctx, const Inputs& x, int64_t heads, const PositionRule& rule);
Plan by_row(const Ctx& ctx, const Inputs& x, int64_t batch, int64_t heads, const RowRule& rule);

// The same as one branch of single keys, shared by all heads.
Plan by_position_singly(const Ctx& ctx, const Inputs& x, const PositionRule& rule);

// HiP's tree search (arXiv 2406.09827), one list for each block of queries; see the body. Causal.
struct TreeSearch {
  int64_t mask_k = 512, block_q = 32, block_k = 2, window = 128, sink = 0;
};
Plan tree_search(const Ctx& ctx, const Inputs& x, const TreeSearch& how);

// Sequences are cut into pieces by the ascending first positions of the pieces; what lies before
// the first of them is a piece as well.
// Positions first, first + size, .. below last, and last.
std::vector<int64_t> cuts(int64_t first, int64_t size, int64_t last);
// The piece of [0, n) that holds `position`, or is next to it.
Range piece(const std::vector<int64_t>& starts, int64_t n, int64_t position);

// Chunks of any tokens: their keys, and which chunk a position is in.
struct Chunks {
  std::vector<Ranges> keys;
  std::vector<int64_t> of;  // [nk]
};
// The tokens of a grid [frames, height, width] cut into boxes; the grid must hold all nk tokens.
// frames 0: a plain sequence.
Chunks grid_chunks(const Problem& p, std::array<int64_t, 3> grid, std::array<int64_t, 3> box);
// q . mean key of the chunk, unscaled, less the minimum and over the range of a row, a head, or all
// (VMoBA, arXiv 2506.23858); -inf where no pair is causal. [batch, heads, nq, chunks].
BlockScores chunk_gates(const Ctx& ctx, const Inputs& x, const Chunks& chunks,
                        Selector::Scope scope);
TileBits own_chunks(const Problem& p, const Chunks& chunks);  // [1, 1, nq, chunks]
// The keys of each query's chunks. Where chunks are made of whole tiles of 64 keys: tiles of 64 x
// 64 that every query of a tile row reads, and tiles of 1 x 64 for the rest; otherwise by_row().
Plan by_chunk(const Ctx& ctx, const Inputs& x, const Chunks& chunks, const TileBits& kept);

// DHSA (arXiv 2510.24606): chunks of queries and of keys are scored by their sums over the root of
// their lengths. Each query reads its last `local` and first `global` keys, and then the best
// chunks, key by key in order, until it has top_k keys. Ties go to the lower chunk.
struct ChunkBudget {
  std::vector<int64_t> starts;  // of key chunks
  int64_t query_block = 0;      // 0: queries are cut as keys are
  int64_t top_k = 1024, local = 0, global = 0;
  bool shared = false;  // one set for all heads, from averaged queries and keys
};
Plan best_chunks(const Ctx& ctx, const Inputs& x, const ChunkBudget& how);

// ChunkLLM (arXiv 2510.02361): each query reads the first chunk, its own, and the top_k completed
// chunks whose last key, adapted, has the greatest product with the adapted query: that of the last
// token before the query's chunk (the first of the call, if that lies before), or its own. One set
// for all heads. q_adapter [1,1,heads dk,width], k_adapter [1,1,kv_heads dk,width].
struct AdaptedChunks {
  std::vector<int64_t> starts;
  int64_t top_k = 16;
  bool each_query = false;
};
Plan adapted_chunks(const Ctx& ctx, const Inputs& x, const Tensor& q_adapter,
                    const Tensor& k_adapter, const AdaptedChunks& how);

// The `count` keys with the greatest q.k of each query, among those it sees: a plan for each count.
std::vector<Plan> top_keys(const Ctx& ctx, const Inputs& x, const std::vector<int64_t>& counts);
// Statistical top-k (Spark Transformer, arXiv 2506.06644): of the m keys a query sees, those whose
// product over the first `channels` channels is at least mean + deviation * z with
// P(Z > z) = count / m for a standard normal Z; all of them where m <= count. Mean and (population)
// deviation are of the row's finite products; about `count` keys stay where they are normal.
Plan statistical_top(const Ctx& ctx, const Inputs& x, int64_t channels, int64_t count);
// The `count` keys with the greatest score among those a query sees; scores f32 [batch, kv_heads,
// 1, nk]. shared: among all keys, one set for all queries, then cut to what each sees. block:
// blocks of keys of which more than half were chosen are read whole, the others not at all; 0:
// keys.
struct TopScored {
  int64_t count = 2048, block = 0;
  bool shared = false;
};
Plan top_scored(const Ctx& ctx, const Inputs& x, const Tensor& scores, const TopScored& how);

// Single keys that make the band [-left, right] with its first `sink` keys into Longformer's
// pattern, as one list a query: tokens of `global` (positions; those below `sink` are global as
// well) see every key and are seen by every query. left, right: -1 is unlimited.
IndexList global_tokens(const Problem& p, const Window& band, const std::vector<int64_t>& global);
// The whole pattern where the band reads every `dilation`-th key on either side, and as many of
// them.
Plan dilated(const Ctx& ctx, const Inputs& x, const Window& band, int64_t dilation,
             const std::vector<int64_t>& global);

// All pairs but those of a plan's first branch: bits for every query of every head.
std::shared_ptr<const BitMask> all_but(const Plan& plan);

// Positions in a tensor of any shape; Error unless each is a whole number in [0, nk).
std::vector<int64_t> positions(const Problem& p, const Tensor& tokens);

}  // namespace regard::lists
