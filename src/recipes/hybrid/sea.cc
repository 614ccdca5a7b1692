#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  Tensor map;
  Tensor gates;
  int64_t top_k = 64;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const Plan sparse = order::compressed_map(ctx, x, p.map, p.top_k);
  // A cap this small leaves equal logits: the running mean of the values.
  const Plan average = Plan::all(x.problem).score({.softcap = 1e-20f});
  return Plan::gated({sparse, average}, estimate::per_row(x.problem, p.gates));
}

}  // namespace

REGARD_DEFINE_RECIPE(sea) {
  static const Record r = recipe<Params>(
      {
          .name = "sea",
          .title = "SEA: sparse attention from an estimated, compressed map",
          .family = "hybrid",
          .paper = "Lee et al., SEA: Sparse Linear Attention with Estimated Attention Mask, ICLR "
                   "2024, arXiv 2310.01777",
          .year = 2023,
          .summary =
              "A trained network of linear cost estimates each row of the attention map at a few "
              "columns. The best columns, chosen over all heads together, widen to the keys they "
              "stand for; attention over those is exact. A learned gate mixes it with the running "
              "mean of the values.",
          .when = "Models distilled with it. The map comes from the model's estimator: here it is "
                  "an input.",
          .cost =
              "Of the map: its network, outside. Then about top_k keys a query and head, and one "
              "dense pass for the mean.",
          .differs =
              "Certain from paper and code: budget, competition of heads, widening of columns with "
              "its rounding, gates on the sparse result and on the running mean. The estimator "
              "(Performer features, a small network, convolutions) is not run here: give its "
              "output. Ties, frequent in its upsampled maps and left to the sort there, go to the "
              "lower head and column. Causal only: without causality the code weighs the mean by "
              "the map, does not normalise it, and without a teacher leaves out 1/sqrt(d).",
          .needs = {"causal", "single", "weights"},
          .twin = "",
      },
      plan,
      {param(
           "map", &Params::map,
           "estimated attention [1|batch, 1|heads, queries, columns], from the model's estimator"),
       param("gates", &Params::gates,
             "factors of the sparse result and of the running mean [1|batch, 1|heads, queries, 2]"),
       param("top_k", &Params::top_k, 1, 1e12, "keys a query and head, on average over heads")});
  return r;
}

}  // namespace regard
