#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {};

Plan plan(const Ctx&, const Inputs& x, const Params&) { return Plan::all(x.problem); }

}  // namespace

REGARD_DEFINE_RECIPE(dense) {
  static const Record r = recipe<Params>(
      {
          .name = "dense",
          .title = "Exact attention",
          .family = "exact",
          .paper = "Dao, FlashAttention-2, ICLR 2024, arXiv 2307.08691",
          .year = 2023,
          .summary = "Every query reads every key it may see. Tiled, with the softmax kept as "
                     "running maximum and sum, so no score matrix is ever stored.",
          .when = "Always right; the yardstick for everything else.",
          .cost = "nq * nk * (dk + dv) multiply-adds a head, half of that when causal.",
          .prefix = true,
          .twin = "",
      },
      plan, {});
  return r;
}

}  // namespace regard
