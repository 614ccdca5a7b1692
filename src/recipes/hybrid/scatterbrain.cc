#include "recipes/recipe.h"
#include "stages/features.h"
#include "stages/lists.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  int64_t window = 256;
  int64_t features = 0;
  int64_t seed = 0;
  std::string support = "window";
  int64_t n_hashes = 4, cluster = 64;
  Tensor directions, hashes;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const Weight low_rank = p.directions ? features::given(x.problem, p.directions)
                                       : features::random(x.problem, p.features, p.seed);
  if (p.support == "hash") {
    const Plan near = order::smyrf(ctx, x, {p.n_hashes, p.cluster, p.seed, p.hashes});
    // `near` first: density counts against its rule.
    return Plan::same({near, Plan::all(x.problem).mask(lists::all_but(near)).weight(low_rank)});
  }
  const int64_t left = p.window / 2, right = (p.window + 1) / 2 - 1;
  Plan all = lists::by_position(ctx, x, 1, [&](int64_t, int64_t i, lists::Ranges* out) {
    *out = {{0, i - left}, {i + right + 1, x.problem.nk}};
  });
  all.weight(low_rank);
  all.branches.push_back(Plan::band(x.problem, left, right).branches[0]);
  all.combine = Combine::same;
  return all;
}

}  // namespace

REGARD_DEFINE_RECIPE(scatterbrain) {
  static const Record r = recipe<Params>(
      {
          .name = "scatterbrain",
          .title = "Scatterbrain: what lies near exactly, the rest by random features",
          .family = "hybrid",
          .paper = "Chen et al., Scatterbrain: Unifying Sparse and Low-rank Attention "
                   "Approximation, NeurIPS 2021, arXiv 2110.15343",
          .year = 2021,
          .summary =
              "Attention is exact where it is expected to be large: in a window around the query, "
              "or in the clusters that hashing gives. All other keys enter through positive random "
              "features, whose products estimate exp(q.k) without bias. Both share one "
              "denominator.",
          .when = "Attention that is diffuse far away. A far key with a large logit is estimated "
                  "badly: the features' variance grows as its exponential.",
          .cost = "Window: features * (dk + dv) products a token; faster than exact from 16K on. "
                  "hash: the features of every pair, so it saves nothing.",
          .differs =
              "Certain from paper and code: the sum of both parts, features for w and -w, "
              "int(d ln d) of them, the window's ends (an even one has one key more to the left), "
              "hashed clusters of equal size whose rounds count a pair once (SMYRF's; the paper "
              "names LSH in general). The paper corrects the features by exp - phi.phi; leaving "
              "these pairs out of the features is the same sum without the cancellation. w is "
              "normal, drawn by counter, or `directions`; the code may make it orthogonal. Causal "
              "windows are cut to the past, where the code leaves that to a mask.",
          .needs = {"single"},
          .twin = "window=1e12",
          .sweep = {"window", {128, 256, 512, 1024}},
      },
      plan,
      {param("window", &Params::window, 1, 1e12, "tokens around the query, both sides together"),
       param("features", &Params::features, 0, 65536, "random features; 0: dk ln dk"),
       param("seed", &Params::seed, 0, 1e12, "of the features and hashes"),
       param("support", &Params::support, {"window", "hash"}, "what is exact"),
       param("n_hashes", &Params::n_hashes, 1, 64, "hash: rounds"),
       param("cluster", &Params::cluster, 1, 65536, "hash: keys a cluster"),
       param("directions", &Params::directions, "w, [1, 1, any, dk], instead of drawn ones"),
       param("hashes", &Params::hashes, "[1, 1, n_hashes, dk + 2], instead of drawn ones")});
  return r;
}

}  // namespace regard
