// Plan: which query-key pairs are read, and how they are scored. A value. Layer: plan.
//
// A branch reads the pairs of (cover AND rule); the branches of a plan are merged (Combine).
// Positions: query i sits at position i + problem.offset on the keys' axis (see problem.h).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "regard/order.h"
#include "regard/problem.h"
#include "regard/tiles.h"
#include "regard/view.h"
#include "regard/weight.h"

namespace regard {

// ---------------------------------------------------------------------------------------------
// A branch, field by field.

enum class SourceKind : uint8_t {
  raw,     // the keys and values as they are
  pooled,  // means over `block` consecutive tokens; such a key sits at its block's LAST token (so
           // it is visible only when the whole block is) and carries the logit + ln(tokens in
           // block)
  given,   // keys and values of the method's own, below: the j-th stands for tokens [j * stride,
           // j * stride + block), whole ones only, and sits at the last of them
};
struct Source {
  SourceKind kind = SourceKind::raw;
  int32_t block = 1, stride = 1;
  Tensor keys{}, values{};  // given: f32 [B, kv_heads, source_keys(), dk | dv]
  // f32 [1, 1|kv_heads, dv + 1, dv]: values v become v M + b, M the first dv rows and b the last.
  // Empty: as they are. Weights are divided by their sum, so this maps the branch's output.
  Tensor value_map{};
};

// Keys with pos_q - left <= pos_k <= pos_q + right (both ends inclusive, -1 = unlimited), and the
// first `sink` keys, which are exempt from `left` but not from `right`.
struct Window {
  int64_t left = -1, right = -1, sink = 0;
  bool unlimited() const { return left < 0 && right < 0; }
};

enum class CoverKind : uint8_t { all, band, tiles, columns };
struct Cover {
  CoverKind kind = CoverKind::all;
  Window band;   // band
  ListRef list;  // tiles, columns
};
// Under an order a cover counts places of the permuted axes: a band is between the places of query
// and key, tile row r holds the queries at places [r * bq, (r + 1) * bq).

// The exact predicate; evaluated pair by pair only in boundary tiles.
struct Rule {
  bool causal = false;  // pos_k <= pos_q
  Window window;        // not together with cover band
  std::shared_ptr<const BitMask> mask;
};

// logit = cap(scale * q.k) + alibi + bias_scale[h] * bias + key_bias
// cap(x) = softcap * tanh(x / softcap)
struct Score {
  float softcap = 0;           // 0 = off
  std::vector<float> alibi{};  // per query head: adds -slope * |pos_q - pos_k|; empty = off
  Tensor bias{};               // [B|1, heads|1, nq, nk] f32, f16 or bf16; -inf forbids the pair
  std::vector<float> bias_scale{};  // per query head; empty = 1
  Tensor key_bias{};                // [B|1, kv_heads|1, 1, nk] f32: a key's log-weight
};

enum class NormKind : uint8_t {
  softmax,
  softmax_sink,  // one more logit per head in the denominator, without a value
  sigmoid,       // weights sigmoid(logit + shift), no normaliser; merging is a plain sum;
                 // lse is ln(sum of weights)
};
struct Norm {
  NormKind kind = NormKind::softmax;
  std::vector<float> sink{};  // softmax_sink: per query head, not scaled
  float shift = 0;            // sigmoid
};

// Arithmetics of the two products; sums, scores and the softmax are f32 in all of them.
//   f32   products in f32
//   bf16  q, k, v and the weights rounded to bf16
//   int8  q and k as 8-bit levels with a scale for every 32 channels of a row; the rest as bf16
//   int16 as f32, but few query rows (decode) meet a quantised k or v in its own integer levels,
//         with q and the weights as 16-bit levels
// Few query rows are bound by memory: bf16 runs them as f32 does, int8 as int16 does.
const std::vector<std::string>& numerics();

struct Branch {
  Source source;
  Order order;  // keys: of the source's keys
  Cover cover;
  Rule rule;
  Score score;
  Weight weight;
  Norm norm;
  // Keys in blocks of 64 by position, ascending: in a row, the values of a block whose greatest
  // logit lies more than this below the greatest so far stay out; their weights stay in the sum
  // (SpargeAttn's second stage, arXiv 2502.18137). Of raw keys as they stand; 0: off.
  float value_skip = 0;
  std::string numeric = "f32";  // arithmetic of QK and PV: one of numerics()
};

enum class Combine : uint8_t {
  only,   // one branch
  same,   // disjoint branches share one softmax: merge their Partials
  gated,  // each branch is finished, then out = sum_b gate[b] * out_b
};

struct Plan {
  Problem problem;
  std::vector<Branch> branches;  // 1..16
  Combine combine = Combine::only;
  Tensor gate;  // gated: f32 [B, heads, nq, branches]

  // Builders. Each makes a plan of one branch; the chained setters act on every branch.
  static Plan all(const Problem& p);
  static Plan band(const Problem& p, int64_t left, int64_t right, int64_t sink = 0);
  static Plan tiles(const Problem& p, int bq, int bk, const TileBits& keep);
  static Plan columns(const Problem& p, IndexList list);  // list.bk must be 1
  static Plan columns(const Problem& p, ListRef list);
  static Plan same(std::vector<Plan> disjoint);
  static Plan gated(std::vector<Plan> plans, Tensor gate);
  Plan& causal(bool on = true);
  Plan& window(Window w);
  Plan& mask(std::shared_ptr<const BitMask> m);
  Plan& score(Score s);
  Plan& norm(Norm n);
  Plan& weight(Weight w);
  Plan& value_map(Tensor map);
  Plan& value_skip(float logits);
  Plan& numeric(const std::string& name);
  Plan& pooled(int block);
  Plan& given(int block, int stride, Tensor keys, Tensor values);
  Plan& order(Order o);

  // Marks boundary tiles and drops the tiles (and columns) that hold no allowed pair; a band under
  // an order becomes columns. Called by attend(); calling it earlier saves doing so once per call.
  // Idempotent.
  Plan& lower(int threads = 1);
  bool lowered = false;

  // Throws Error: index out of range, unsorted or repeated; sizes that do not fit the problem; an
  // order that is no permutation; overlapping branches under `same` (pairs of tokens, whatever
  // their places; of large problems a sample of the rows); a cover or rule that contradicts itself.
  void validate() const;
};

// ---------------------------------------------------------------------------------------------
// What a plan allows, row by row: keys [lo, hi) and the prefix [0, sink). Masks and covers under an
// order come on top. Rows and keys are tokens.

struct RowRanges {
  std::vector<int32_t> lo, hi;  // [nq]; lo >= hi: nothing but the prefix
  std::vector<int32_t> sink;    // [nq]; clipped to causality; 0 where there is none
};
// In units of the branch's source keys (pooled: blocks).
RowRanges row_ranges(const Problem& p, const Branch& b);
// nk; pooled: ceil(nk / block); given: those that end inside nk, at least 1 (which nobody sees).
int64_t source_keys(const Problem& p, const Branch& b);

// Every allowed pair of branch `i`, for tests and small problems: bits over source keys, with the
// batch and head axes written out.
BitMask expand(const Plan& plan, int i);

// Share of the pairs that exact attention (cover all, same rule) would read in each cell of
// cell_q x cell_k tokens and that the plan reads, for one batch item and head; -1 where exact
// attention reads none. [ceil(nq / cell_q), ceil(nk / cell_k)], row major. Raw branches only.
std::vector<float> coverage(const Plan& plan, int64_t b, int64_t head, int64_t cell_q,
                            int64_t cell_k);

struct Cost {
  double pairs = 0;         // query-key pairs read, all heads and branches
  double causal_pairs = 0;  // pairs of exact attention under the same rule (cover all)
  double tile_pairs = 0;    // pairs in the tiles touched: what a kernel computes
  double tiles = 0;
  double flops = 0;                // 2 (dk + dv) per tile pair; linear: per token
  double bytes = 0;                // q, k, v, out and lists once; K and V once a tile
  std::vector<double> head_pairs;  // pairs by query head, summed over the batch
  double density() const { return causal_pairs > 0 ? pairs / causal_pairs : 0; }
};
Cost cost(const Plan& plan);

std::string describe(const Plan& plan);  // text: branches, lists, density, head by head
// A grid of kept tiles for (batch 0, head): at most `size` pixels wide. For pages and notebooks.
std::string svg(const Plan& plan, int64_t head, int size = 360);
uint64_t hash(const Plan& plan);  // equal plans, equal hash; stable between runs and machines
std::string to_json(const Plan& plan);
Plan plan_from_json(const std::string& text);  // throws Error

}  // namespace regard
