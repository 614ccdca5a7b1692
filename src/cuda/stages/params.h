// What the stage kernels are told: plain data, device pointers. Layer: cuda.
//
// They are compiled without contraction to fused multiply-adds: where one is meant it is written,
// since every rounding is that of the CPU's body (src/stages/device.h).
#pragma once
#include <cstdint>

#include "stages/units.h"

namespace regard::cuda::stages {

// A tensor of 16-bit elements, channels side by side. Strides in bytes.
struct Rows {
  const char* data = nullptr;
  int64_t batch = 0, head = 0, token = 0;
  int32_t heads = 0, tokens = 0, channels = 0, batches = 0;
  bool bf16 = false;
};

// Levels (stages/levels.h) of every token, and their scales, in groups of `stride` tokens: token t
// is number t % stride of group t / stride. Zeros fill the channels up to `padded`, a multiple of
// kChunk, and the last group. The tokens of one number lie together, as products read them. There
// is room for the scales of `groups`, a multiple of 4.
constexpr int kChunk = 64;
struct Levels {
  uint16_t* x = nullptr;   // f16 [batch, heads, stride, tokens / stride, padded]
  float* scale = nullptr;  // [batch, heads, stride, groups]
  int32_t padded = 0, tokens = 0, stride = 0, groups = 0;
};
void launch_levels(const Rows& from, const Levels& to, void* stream);

// Antidiagonal scores of query groups [first, first + groups) of every head.
struct Antidiagonal {
  Levels q, k;
  float2* tiles = nullptr;  // [batch, heads, groups, cols]: maximum and sum of a tile's groups
  float* out = nullptr;     // [batch, heads, rows, cols]
  int64_t nq = 0, nk = 0, offset = 0;
  int32_t heads = 0, group = 0, pairs = 0;  // group: query heads a KV head; pairs: batch * heads
  int32_t q_groups = 0, k_groups = 0, rows = 0, cols = 0;
  int32_t stride = 0, per_tile = 0;  // tokens a group; groups a tile
  int32_t first = 0, groups = 0;     // multiples of per_tile but for the end
  bool causal = false;
  float scale = 0;  // of a product: the problem's over the stride
};
constexpr int kMostPerTile = 128;
// hopper_sms: of an sm_90, whose products have a kernel of their own with the same numbers; else 0.
void launch_antidiagonal(const Antidiagonal& p, int hopper_sms, void* stream);
void launch_antidiagonal_products_sm90(const Antidiagonal& p, int sms, void* stream);

// Rows of scores [rows, cols] to their softmax.
struct Softmax {
  const float* from = nullptr;
  float* to = nullptr;
  int64_t rows = 0, cols = 0;
};
void launch_softmax(const Softmax& p, void* stream);

// Means of tokens [first, last) in blocks; exactly one of the results is given.
struct Means {
  Rows from;
  int32_t first = 0, last = 0, block = 0, blocks = 0;
  float* rounded = nullptr;  // [batch, heads, blocks, channels]
  double* exact = nullptr;
};
void launch_means(const Means& p, void* stream);

// out = scale * products of means; -inf where no pair is causal.
struct PooledDots {
  const float *q = nullptr, *k = nullptr;  // [batch, heads | kv_heads, rows | cols, channels]
  float* out = nullptr;                    // [batch, heads, rows, cols]
  int64_t nq = 0, offset = 0;
  int32_t group = 0, pairs = 0, rows = 0, cols = 0, channels = 0, bq = 0, bk = 0;
  bool causal = false;
  float scale = 0;
};
void launch_pooled_dots(const PooledDots& p, void* stream);

constexpr int kProbePart = 16;  // queries that are added up first
// Probabilities of the last queries, summed down columns and along diagonals, for KV heads
// [first, first + count) of all batch items, counted together.
struct Probe {
  Rows q, k;
  float* logits = nullptr;  // [count, group, probes, line]
  uint32_t* top = nullptr;  // [count, group, probes], as ordered(): zero before
  float2* norms = nullptr;  // what is subtracted from a row's logits, one over their sum
  float *vertical = nullptr, *slash = nullptr;  // [batch * heads, nk], [batch * heads, offsets]
  const float* sink = nullptr;                  // [heads] or null
  int64_t nq = 0, nk = 0, offset = 0, offsets = 0, line = 0;
  int32_t first = 0, count = 0, group = 0, probes = 0;
  bool causal = false;
  float scale = 0;
};
void launch_probe(const Probe& p, void* stream);

// The probe by tiles: arrays 2 n and 2 n + 1 are the columns and the diagonals of head n.
struct ProbeTiles {
  const float *vertical = nullptr, *slash = nullptr;  // [heads, nk], [heads, offsets]
  double* sums = nullptr;                             // [heads, columns], then [heads, diagonals]
  units::Crossing* crossings = nullptr;               // [2 * heads]
  int64_t nk = 0, offsets = 0, keys = 0, length = 0;  // counted: [0, keys), [0, length)
  int32_t heads = 0, block = 0, columns = 0, diagonals = 0;
  double gamma = 0;  // 0: no crossings
};
void launch_probe_tiles(const ProbeTiles& p, void* stream);

// Products of one mean of queries a head with means of keys, f64.
struct MeanProducts {
  const double *q = nullptr,
               *k = nullptr;  // [batch, heads, channels], [batch, kv, tiles, channels]
  double* out = nullptr;      // [batch, heads, tiles]
  int32_t pairs = 0, group = 0, tiles = 0, channels = 0;
  float scale = 0;
};
void launch_mean_products(const MeanProducts& p, void* stream);

// stages/select.h, every row by itself.
struct Select {
  const float* scores = nullptr;     // [batch, heads, rows, cols]
  const uint64_t* forced = nullptr;  // [forced_batch, forced_heads, rows, words] or null
  uint64_t* out = nullptr;           // [batch, heads, rows, words]
  const double* amounts = nullptr;   // a row, instead of `amount`; or null
  int64_t batch = 0, heads = 0, rows = 0, forced_batch = 1, forced_heads = 1;
  int32_t cols = 0, words = 0;
  int32_t size = 0;  // the power of two from cols on, at least kLeastSelected
  enum Cut { top_k, coverage, threshold } cut = coverage;
  bool keep_crossing = true, forced_counts = true, ceil = false;
  double amount = 0;
  int64_t extra = 0, min_count = 0, max_count = 0;
};
constexpr int kLeastSelected = 256, kMostSelected = 8192;  // a warp's; fits into 99 KB
void launch_select(const Select& p, void* stream);

// out = a op b, bit by bit; a batch or head axis of 1 broadcasts.
struct Combined {
  const uint64_t *a = nullptr, *b = nullptr;
  uint64_t* out = nullptr;                                   // [batch, heads, words]
  int64_t batch = 0, heads = 0, words = 0;                   // words of a head
  int64_t a_batch = 0, a_head = 0, b_batch = 0, b_head = 0;  // words between; 0: broadcast
  enum Op { either, both, without } op = either;
};
void launch_combined(const Combined& p, void* stream);

// lists::TileStripes spread over rows of tiles.
struct Stripes {
  const uint64_t *columns = nullptr, *turned = nullptr;  // [heads, words], [heads, turned_words]
  uint64_t* out = nullptr;                               // [heads, rows, words]
  int64_t nq = 0, offset = 0, block = 0, diagonals = 0;
  int64_t heads = 0, rows = 0, cols = 0, words = 0, turned_words = 0;
};
void launch_stripes(const Stripes& p, void* stream);

// Keys of a row of tiles that some (`most`) and that every (`least`) query of it reads: [0, ..).
struct Seen {
  int64_t nq = 0, nk = 0, offset = 0;
  bool causal = false;
};
// Lists of the bits' tiles that hold a pair; the boundary flag where not all pairs are allowed.
struct TileLists {
  const uint32_t* bits = nullptr;  // [lists, words]
  int64_t* start = nullptr;        // [lists + 1]
  uint32_t* index = nullptr;
  Seen seen;
  int64_t lists = 0;
  int32_t rows = 0, words = 0, bq = 0, bk = 0;
};
void launch_tile_starts(const TileLists& p, void* stream);
void launch_tile_lists(const TileLists& p, void* stream);  // after the starts
// Lengths at start[1..n] become sums from the first on, start[0] 0.
void launch_sums(int64_t* start, int64_t n, void* stream);

}  // namespace regard::cuda::stages
