// What the kernels of the baseline see. Plain data, host and device. Layer: cuda.
#pragma once
#include <cstdint>

#include "regard/weight.h"

namespace regard::cuda::sm80 {

enum class Type : int32_t { f32, f16, bf16 };

// What an instance takes. Decoding has instances of its own, whose code is short: ranges of keys or
// lists, with or without pages, plain scores, softmax, no bit mask. So has prefill (`wide`): ranges
// of keys without pages. `skips`: Branch::value_skip.
enum class Kind { any, ranges, lists, wide, skips };

// Strides in bytes.
struct Rows {
  char* data = nullptr;
  int64_t batch = 0, head = 0, token = 0;
};

// Rows that may lie in pages (tables of [B, pages_row]): row i is (i & mask) of the page that the
// table has for i >> shift.
struct PagedRows {
  Rows rows;
  int64_t page = 0;  // bytes between pages
  const int32_t* pages = nullptr;
  int64_t pages_row = 0;
  int32_t shift = 31, mask = 0x7fffffff;
};

// Which blocks of kStateKeys keys all rows of a tile read whole: a bit a block,
// [lists][tiles][words]. Linear attention adds their sums, and reads the rest pair by pair.
constexpr int kStateKeys = 64, kPairRows = 32;
struct WholeBlocks {
  const uint32_t* bits = nullptr;  // null: none
  int32_t batch = 0, heads = 1;    // lists between batch items (0: shared); lists a batch item has
  int32_t tiles = 0, rows = 1, words = 0;  // `rows` queries a tile
};

// One block's work: some query rows over some key tiles.
struct Item {
  int32_t b, h0, heads;  // query heads [h0, h0 + heads), one KV head
  int32_t i0, queries;   // row r is query (place) i0 + r / heads, head h0 + r % heads
  int32_t begin, end;    // key tiles
  int32_t lo, hi, sink;  // ranges: tiles of [0, sink), then tiles of [lo, hi)
  int32_t sink_tiles;    // how many the first are
  int32_t keys;          // lists: keys in all
  int64_t entries;       // lists: first entry in Params::index
  int64_t slot;          // row 0's place among the Partials; -1: finish and write out
  // Pieces that share these rows, the slot of the first piece and the rows' place in Params::done.
  int64_t first_slot;
  int32_t pieces, tile;
};

struct Params {
  Rows q, k, v;
  // Token `row` of the pool lies at (row >> shift) * page + (row & mask) * token; without pages
  // row is the key and shift is 31.
  int64_t k_page = 0, v_page = 0;
  const int32_t* pages = nullptr;  // [B, pages_row]
  int64_t pages_row = 0;
  int32_t page_shift = 31, page_mask = 0x7fffffff;

  int32_t dk = 0, dv = 0, group = 1, nk = 0;
  const Item* items = nullptr;
  const int32_t *lo = nullptr, *hi = nullptr, *sink = nullptr;  // [nq], as RowRanges
  const uint32_t* index = nullptr;                              // lists; null: ranges
  int32_t bk = 1;                                               // keys an entry
  // Orders: who stands at the places that items and lists count; null: a place is its token.
  // Strides in tokens; `key_heads` query heads share a row of the keys' order.
  const uint32_t *query_order = nullptr, *key_order = nullptr;
  int64_t query_batch = 0, query_head = 0, key_batch = 0, key_head = 0;
  int32_t key_heads = 1;

  // Scores in units of log2 e: x = plain ? q.k : factor * q.k (capped) + the additive terms; a
  // weight is 2^(c x - c max), c = 1 unless plain.
  bool plain = true;
  float c = 1, factor = 1, cap = 0;
  const float* alibi = nullptr;       // [heads], in units of log2 e
  const int32_t* position = nullptr;  // [nq], with alibi
  Rows bias;
  int64_t bias_key = 0;
  Type bias_type = Type::f32;
  const float* bias_scale = nullptr;  // [heads] or null
  Rows key_bias;                      // token: bytes between keys
  const uint64_t* mask = nullptr;     // words; strides in words
  int64_t mask_batch = 0, mask_head = 0, mask_row = 0;

  float value_skip = 0;  // in units of log2 e
  // Weights of features (0: exponential): log2 phi of every query [B, heads, nq, features] and key,
  // and the greatest of each row.
  int32_t features = 0, kv_heads = 1, nq = 0;
  const float *q_features = nullptr, *k_features = nullptr, *q_top = nullptr, *k_top = nullptr;
  // Single keys as lists of tiles of 64: which of its keys each of 32 queries reads, [entries][32].
  const uint64_t* tile_pairs = nullptr;
  // Of features: blocks of keys that come as sums, and the rows' Partials of those.
  WholeBlocks whole;
  const uint8_t* loose = nullptr;  // [B * kv_heads][blocks padded]
  const float *start_acc = nullptr, *start_head = nullptr;

  bool sigmoid = false;
  float shift = 0;                    // sigmoid, in units of log2 e
  const float* sink_logit = nullptr;  // [heads], in units of log2 e

  Rows out, lse;  // lse.data null: not wanted
  Type out_type = Type::f32;
  // Partials of split or several branches: acc [slots][dv], head [slots]{max in log2 e, sum}.
  float* part_acc = nullptr;
  float* part_head = nullptr;
  // Pieces done so far of each tile of rows: the last one merges, finishes and leaves 0. Null: the
  // merge is a kernel of its own.
  uint32_t* done = nullptr;
};

// Keys or values as a branch has them.
inline PagedRows paged(const Params& p, const Rows& rows, int64_t page) {
  return {rows, page, p.pages, p.pages_row, p.page_shift, p.page_mask};
}

constexpr int kBranches = 16;  // of a plan, at most

// The one merge: every query row's Partials, branch by branch.
struct RowSlots {
  int64_t first;        // slot of the first Partial
  int32_t count, step;  // slots first + n * step
};
struct MergeParams {
  int32_t branches = 1, heads = 1, nq = 0, dv = 0;
  int64_t rows = 0;                       // B * heads * nq
  const RowSlots* slots[kBranches] = {};  // [rows] a branch; null: one Partial a row, in order
  const float* acc[kBranches] = {};
  const float* head[kBranches] = {};
  const float* sink_logit[kBranches] = {};
  bool sigmoid[kBranches] = {};
  Rows gate;  // data null: one softmax
  Rows out, lse;
  Type out_type = Type::f32;
};

// log2 phi of queries or keys, m numbers a row.
struct FeatureParams {
  PagedRows from;
  WeightKind kind = WeightKind::softmax;
  Type type = Type::bf16;
  // Random: factor * w_r . x - half * |x|^2 + offset, the w_r as columns of [d][m].
  const float* directions = nullptr;
  float factor = 0, half = 0, offset = 0;
  float *to = nullptr, *top = nullptr;  // [rows, m], [rows]
  int32_t heads = 1, n = 0, d = 0, m = 0;
  int64_t rows = 0;  // B * heads * n
};

// k or v as means over `block` tokens.
struct PoolParams {
  PagedRows from;
  char* to = nullptr;  // [B, kv_heads, blocks, d] contiguous
  int32_t kv_heads = 1, nk = 0, d = 0, block = 1, blocks = 0;
  Type type = Type::bf16, to_type = Type::bf16;
  int64_t rows = 0;  // B * kv_heads * blocks
};

// Keys' log-weights with ln of the tokens that each of them stands for.
struct TokensParams {
  Rows from;            // data null: 0
  float* to = nullptr;  // [B | 1, kv_heads | 1, n] contiguous
  int32_t heads = 1, n = 0, block = 1, tokens = 0;
  int64_t count = 0;  // numbers
};

// Values v M + b, M the first d rows of `map` and b the last.
struct MapParams {
  PagedRows from;
  const float* map = nullptr;  // [1 | kv_heads][d + 1][d]
  int64_t map_head = 0;
  char* to = nullptr;  // [B, kv_heads, n, d] contiguous
  int32_t kv_heads = 1, n = 0, d = 0;
  Type from_type = Type::bf16, type = Type::bf16;
  int64_t rows = 0;  // B * kv_heads * n
};

}  // namespace regard::cuda::sm80
