// Estimators: cheap scores for tiles or tokens. Layer: stages. Bodies: src/stages/estimate/*.cc.
#pragma once
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "stages/unwritten.h"

namespace regard {

using Scores = std::vector<float, Unwritten<float>>;

// Scores that lie in a GPU's memory.
class DeviceScores {
 public:
  virtual ~DeviceScores() = default;
  virtual std::vector<float> fetch() const = 0;  // waits for them
};

// Scores of tiles [batch, heads, rows, cols]; a tile no query may see is exactly 0 (after a
// softmax) or -inf (raw), as each estimator states.
struct BlockScores {
  int64_t batch = 0, heads = 0, rows = 0, cols = 0;
  Scores s;
  // Where a stage ran on a GPU: the scores, and `s` is empty until on_host().
  std::shared_ptr<const DeviceScores> device = nullptr;
  const float* row(int64_t b, int64_t h, int64_t r) const {
    return &s[((b * heads + h) * rows + r) * cols];
  }
  float* row(int64_t b, int64_t h, int64_t r) { return &s[((b * heads + h) * rows + r) * cols]; }
};

BlockScores on_host(BlockScores scores);  // brings them over where they lie on a GPU

namespace estimate {

// A random number in [0, 1) a tile, the same for all batch items: random_uniform(seed, head, own,
// c) with `own` the key tile of the row's first query (select.h, keep::where).
BlockScores random(const Problem& p, int bq, int bk, int64_t seed);

// XAttention (arXiv 2503.16428, algorithm 1): strided antidiagonal sums, softmax over key groups,
// summed to tiles of `block` x `block`. Causal where the inputs are. Where keys are of 16 bits,
// rows are rounded to levels first (levels.h).
BlockScores antidiagonal(const Ctx& ctx, const Inputs& x, int block, int stride);

// Mean of queries and keys over tiles, scaled dot; raw logits, -inf where no pair is causal. Tiles
// of keys are of places where an order is given, -inf still by the place.
BlockScores pooled_means(const Ctx& ctx, const Inputs& x, int bq, int bk,
                         const Permutation* order = nullptr);

// How alike the vectors of each tile of `block` tokens are: the mean of all cosines inside it,
// |sum of x / |x||^2 / tokens^2 (SpargeAttn, arXiv 2502.18137). [batch, heads of v, 1, tiles].
// minus_mean: of x less its mean over all tokens. whole_only: a last, partial tile is NaN.
BlockScores self_similarity(const Ctx& ctx, const View& v, int block, bool minus_mean,
                            bool whole_only);

// Softmax over a sample of the pairs, the largest of each tile (Pyramid Sparse Attention, arXiv
// 2512.04025; Video-BLADE, arXiv 2508.10774). The same offsets in every tile, drawn by counter for
// each head, for queries and keys apart; past the end the last token stands in. normalised: by the
// row's sum over the sample; otherwise relative to the row's maximum. A tile none of whose sampled
// pairs is visible is 0; -inf where no pair is causal.
struct Sample {
  int64_t queries = 8, keys = 8, seed = 0;
  bool normalised = true;
  Tensor query_offsets{}, key_offsets{};  // instead of drawn ones: [1|batch, 1|heads, 1, any]
};
BlockScores sampled(const Ctx& ctx, const Inputs& x, int bq, int bk, const Sample& how);

// ProxyAttn (arXiv 2509.24745): queries and keys averaged over groups of heads, the first token of
// every `stride`, causal softmax, the largest of each tile. Heads of a group share their scores.
// -inf where no pair is causal.
BlockScores proxy_heads(const Ctx& ctx, const Inputs& x, int block, int stride, int64_t groups);

// Column and diagonal sums of the exact probabilities of the strip's last `last` queries
// (MInference 1.0, arXiv 2407.02490): vertical[b,h,j] over keys j; slash[b,h,o] over offsets o =
// pos_q - pos_k.
struct VerticalSlash {
  int64_t batch = 0, heads = 0;
  int64_t nk = 0;
  int64_t offsets = 0;          // max(nk, offset + nq): nk unless queries sit past the last key
  std::vector<float> vertical;  // [batch, heads, nk]
  std::vector<float> slash;     // [batch, heads, offsets]
  // Sums that a GPU made lie there, vertical ones first, until on_host(); both vectors are empty.
  std::shared_ptr<const DeviceScores> device{};
  int64_t forced_columns = 0, forced_diagonals = 0;  // of these sums: the first ones count as +inf
};
VerticalSlash on_host(VerticalSlash s);
VerticalSlash vertical_slash(const Ctx& ctx, const Inputs& x, int last);

// The same probe as FlexPrefill (arXiv 2502.20766) reads it: its sums over tiles of `block` keys,
// and of `block` offsets from the nearest on (f64, in order), and the fewest keys and offsets whose
// shares reach `gamma` of all (0 where gamma is; units.h says how shares are counted). Of the keys
// and offsets that the last query may see, at least one.
struct ProbeTiles {
  int64_t batch = 0, heads = 0, block = 0;
  int64_t columns = 0, diagonals = 0;                  // tiles
  std::vector<double> vertical, slash;                 // [batch, heads, columns | diagonals]
  std::vector<int64_t> vertical_tokens, slash_tokens;  // [batch, heads]
};
ProbeTiles probe_tiles(const Ctx& ctx, const Inputs& x, int block, double gamma);

// Attention to means of `width` keys every `stride` keys, gathered to blocks of `block` keys for
// each single query (NSA, arXiv 2502.11089, equation 9; InfLLM-V2, arXiv 2509.24663). A mean is
// visible once all its keys are. The softmax over the means is summed over the query heads of a KV
// head; a block gets the sum of the means that overlap it, each by overlap / stride, or their
// maximum. [batch, kv_heads, nq, blocks]; 0 where no mean is visible, -inf after the query's own
// block.
struct Compression {
  int64_t width = 32, stride = 16, block = 64;
  bool maximum = false;
  Tensor keys{};       // instead of means: [B, kv_heads, their number, dk]
  int64_t coarse = 0;  // the softmax's sum is that over means of coarse * width keys; 0: its own
};
BlockScores compressed(const Ctx& ctx, const Inputs& x, const Compression& how);

// SeerAttention (arXiv 2410.13276): learned logits of blocks. Queries pooled by their mean, keys by
// maximum, minimum and mean side by side; each head's linear map; rotated to the position of the
// block's first token; scaled dot product. q_gate [1,heads,dk,width], k_gate [1,heads,3 dk,width].
// rope: base of the rotation that q and k carry (undone before pooling, halves paired); 0: none.
// -inf where no pair is causal.
BlockScores learned_gate(const Ctx& ctx, const Inputs& x, const Tensor& q_gate,
                         const Tensor& k_gate, int block, double rope);

// Dynamic mask attention (arXiv 2508.02124): a log-weight a key, a[h] * softplus(v W_dt)[h], v all
// heads' values side by side; `exponential`: exp of that. f32 [batch, kv_heads, 1, nk], with the
// model's own key bias added. dt [1,1,kv_heads dv,kv_heads], a: one number a KV head.
Tensor value_bias(const Ctx& ctx, const Inputs& x, const Tensor& dt, const Tensor& a,
                  bool exponential);

// The same gate for all rows.
Tensor constant_gate(const Problem& p, const std::vector<double>& weights);

// FlexPrefill (arXiv 2502.20766): square root of the Jensen-Shannon divergence (natural logarithm)
// between the probe's column sums by key tile and the softmax of pooled means with the mean of the
// same last `block` queries. [batch, heads, 1, 1].
BlockScores divergence(const Ctx& ctx, const Inputs& x, const ProbeTiles& probe);

// Share of the exact probability that a plan's first branch keeps, as a gate f32 [batch, heads, nq,
// 1]; 1 where a row's logits are no numbers.
Tensor kept_share(const Ctx& ctx, const Inputs& x, const Plan& plan);
// A tensor [1|batch, 1|heads, nq, n] as a gate of n branches.
Tensor per_row(const Problem& p, const Tensor& values);

// The same inputs without the first keys.
Inputs from_key(const Inputs& x, int64_t first);

// Attention that every tile gets: the sum of exact probabilities over its pairs, with the model's
// score and norm. A row of the result sums to the queries of the tile row that see any key (less
// what a sink took). The yardstick for estimators and the pooled attention maps of the report;
// costs a QK product.
BlockScores block_mass(const Ctx& ctx, const Inputs& x, int bq, int bk);

}  // namespace estimate
}  // namespace regard
