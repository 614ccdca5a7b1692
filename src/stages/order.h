// Orders and groups: which tokens belong together, by cluster, by hash, by sorting. Layer: stages.
// Bodies: src/stages/order/*.cc. The same bits for any number of threads and every seed; random
// numbers are functions of their place (random.h) and shared by batch items and heads.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "stages/estimate.h"

namespace regard::order {

// A number in [0, count) for every token.
struct Labels {
  int64_t batch = 0, heads = 0, n = 0, count = 0;
  std::vector<int32_t> label;  // [batch, heads, n]
  const int32_t* row(int64_t b, int64_t h) const { return &label[(b * heads + h) * n]; }
  int32_t* row(int64_t b, int64_t h) { return &label[(b * heads + h) * n]; }
};

// Tokens stand by label, then by position.
std::shared_ptr<const Permutation> by_label(const Labels& labels);

// --- clusters ------------------------------------------------------------------------------------

struct Clusters {
  Labels labels;
  int64_t depth = 0;
  std::vector<float> centroids;  // [batch, heads, count, depth]
  const float* row(int64_t b, int64_t h) const {
    return &centroids[(b * labels.heads + h) * labels.count * depth];
  }
};

// Lloyd's algorithm, Euclidean, from `clusters` distinct random tokens (all tokens if there are
// fewer): a token goes to the nearest centroid (the first of several), a centroid to the mean of
// its tokens; one without tokens stays. At most `iterations` times both. Labels are those of the
// last assignment, centroids the means of these labels.
// first: centroids to begin with, [1|batch, 1|heads, any, depth], instead of tokens.
Clusters kmeans(const Ctx& ctx, const View& x, int64_t clusters, int64_t iterations, int64_t seed,
                const Tensor& first = {});

// Sparse VideoGen2 (arXiv 2505.18875): what a query at a centroid gives to each key cluster,
// tokens * e^logit over their sum. [batch, heads, query clusters, key clusters]; a logit that is
// NaN counts as none.
BlockScores cluster_mass(const Ctx& ctx, const Problem& p, const Clusters& queries,
                         const Clusters& keys);

// Queries of a cluster read the keys of the kept clusters: one list a cluster of queries, which
// stand side by side. keep: [batch, heads, query clusters, key clusters].
Plan clusters(const Ctx& ctx, const Problem& p, const Labels& queries, const Labels& keys,
              const TileBits& keep);

// Routing Transformer (arXiv 2003.05997): every centroid takes the `window` tokens that are most
// similar to it after a layer norm without parameters, so a token may be in no cluster or in
// several; a query reads the keys of all its clusters, each once. centroids: [1|batch, 1|heads,
// clusters, dk]; absent: k-means of the layer-normed keys. window 0: tokens / clusters, rounded up.
struct Routing {
  int64_t clusters = 0, window = 0, iterations = 10, seed = 0;
  Tensor centroids;
  bool average = false;  // a softmax for each cluster; their outputs' sum over (clusters + 0.01)
};
Plan routing(const Ctx& ctx, const Inputs& x, const Routing& how);

// --- hashes --------------------------------------------------------------------------------------

// Reformer (arXiv 2001.04451): argmax of [x R, -x R], R random normal [d, buckets / 2].
// Given R: [1, rounds, buckets / 2, d].
Labels lsh(const Ctx& ctx, const View& x, int64_t buckets, int64_t round, int64_t seed,
           const Tensor& rotations = {});

// LSH attention: in each round keys stand by (bucket, position) in chunks; a query, standing where
// a key of its bucket and position would, reads the keys of its bucket in its chunk and the one
// before. Rounds are united, each key once. A query reads itself where self_always, else only if
// it reads nothing else.
struct Lsh {
  int64_t rounds = 8, chunk = 64, buckets = 0, seed = 0;  // buckets 0: 2 * nk / chunk, rounded up
  bool self_always = false;
  Tensor rotations{};
};
Plan lsh_attention(const Ctx& ctx, const Inputs& x, const Lsh& how);

// SMYRF's balanced clusters (arXiv 2010.05315), the hashed support of Scatterbrain's authors. In
// each round keys [k, sqrt(M - |k|^2), 0] and queries [q, 0, sqrt(M - |q|^2)], M = max |q|^2 + max
// |k|^2 of a head's tokens (so that they are the nearer, the larger q.k), are sorted by their
// product with a random direction; the queries, cut to as many parts, read the `cluster` keys of
// the same number. Rounds are united, one list a query. directions: [1, 1, rounds, dk + 2], absent:
// random_normal( seed, 1, round, channel).
struct Smyrf {
  int64_t rounds = 4, cluster = 64, seed = 0;
  Tensor directions{};
};
Plan smyrf(const Ctx& ctx, const Inputs& x, const Smyrf& how);

// HyperAttention (arXiv 2310.05869): the sign bits of x R as a number. Rank: its place in the Gray
// code, where neighbours differ in one bit; gray_of_bits: the Gray code of it (the authors' table).
// Given R: [1, 1, projections, d].
Labels angular(const Ctx& ctx, const View& x, int64_t projections, bool gray_of_bits, int64_t seed,
               const Tensor& given = {});

// Sorted blocks and a sample for the rest, as branches of one softmax. Keys and queries stand by
// rank; the n-th block of queries reads the n-th block of keys and, of `samples` places drawn with
// replacement, the keys outside that block, each with the weight ln(times drawn * keys / samples).
// Causal: halves of the sequence are halved again until they hold at most min_tokens, which are
// read exactly; a second half reads its first half as above.
struct Hyper {
  int64_t block = 256, samples = 256, projections = 7, min_tokens = 4096, seed = 0;
  bool gray_of_bits = false;
  Tensor directions{};  // [1, 1, projections, dk]
  Tensor places{};      // drawn places, [1|batch, 1|kv_heads, quadrants by level, samples]
};
Plan hyper(const Ctx& ctx, const Inputs& x, const Hyper& how);

// --- maps ----------------------------------------------------------------------------------------

// SEA (arXiv 2310.01777): a map [1|batch, 1|heads, nq, columns] of estimated attention in which
// column c stands for the keys j < n with floor((j + 0.5) / n * columns - 1e-4) = c, n the keys
// that the query sees. A query keeps the max(1, round(heads * keys * columns / n)) best columns of
// all its heads together, and reads the keys they stand for.
Plan compressed_map(const Ctx& ctx, const Inputs& x, const Tensor& map, int64_t keys);

// --- sorting -------------------------------------------------------------------------------------

// PBS-Attn (arXiv 2510.21270): inside each whole segment keys stand by falling mean probability
// that the last `probe` queries give them, softmax over the keys of whole segments, no causal mask.
std::shared_ptr<const Permutation> by_importance(const Ctx& ctx, const Inputs& x, int64_t segment,
                                                 int64_t probe);

// The tiles whose keys' places hold `token`, in every row: [batch, heads] of the order.
TileBits blocks_of(const Problem& p, int bq, int bk, const Permutation& keys, int64_t token);

// Sinkhorn normalisation of (max(score, 0) + 1e-6)^(1 / temperature), rows then columns,
// `iterations` times; logarithms of the result. -inf stays.
BlockScores sinkhorn(BlockScores scores, int64_t iterations, double temperature);

}  // namespace regard::order
