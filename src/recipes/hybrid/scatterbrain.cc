#include "recipes/recipe.h"
#include "stages/features.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t window = 256;
  int64_t features = 0;
  int64_t seed = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t left = p.window / 2, right = (p.window + 1) / 2 - 1;
  Plan all = lists::by_position(ctx, x, 1, [&](int64_t, int64_t position, lists::Ranges* out) {
    *out = {{0, position - left}, {position + right + 1, x.problem.nk}};
  });
  all.weight(features::random(x.problem, p.features, p.seed));
  all.branches.push_back(Plan::band(x.problem, left, right).branches[0]);
  all.combine = Combine::same;
  return all;
}

}  // namespace

REGARD_DEFINE_RECIPE(scatterbrain) {
  static const Record r = recipe<Params>(
      {
          .name = "scatterbrain",
          .title = "Scatterbrain: a window exactly, the rest by random features",
          .family = "hybrid",
          .paper = "Chen et al., Scatterbrain: Unifying Sparse and Low-rank Attention "
                   "Approximation, NeurIPS 2021, arXiv 2110.15343",
          .year = 2021,
          .summary =
              "Inside a window around each query attention is exact. All other keys enter through "
              "positive random features, whose products estimate exp(q.k) without bias: one sum "
              "over keys serves every query. Both share one denominator.",
          .when = "Attention that is diffuse far away. A far key with a large logit is estimated "
                  "badly: the features' variance grows as its exponential.",
          .cost = "Nothing to choose. Exact attention over the window, and features * (dk + dv) "
                  "products a token.",
          .differs =
              "Certain from paper and code: the sum of both parts, features for w and -w, "
              "int(d ln d) of them, the window's ends (an even one has one key more to the left). "
              "The paper corrects the features by exp - phi.phi inside the window; leaving these "
              "pairs out of the features is the same sum without the cancellation. Here w is "
              "normal, drawn by counter; the code may make it orthogonal. Supports by hashing are "
              "not part: their complement has no whole blocks to sum. Causal windows are cut to "
              "the past, where the code leaves that to a mask.",
          .needs = {"single"},
          .twin = "window=1e12",
          .sweep = {"window", {128, 256, 512, 1024}},
      },
      plan,
      {param("window", &Params::window, 1, 1e12, "tokens around the query, both sides together"),
       param("features", &Params::features, 0, 65536, "random features; 0: dk ln dk"),
       param("seed", &Params::seed, 0, 1e12, "of the features")});
  return r;
}

}  // namespace regard
