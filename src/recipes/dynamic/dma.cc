#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  Tensor dt, a;
  int64_t window = 2048;
  std::string bias = "plain";
  std::string rows = "each";
  int64_t block_size = 1;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const Tensor weight = estimate::value_bias(ctx, x, p.dt, p.a, p.bias == "exp");
  return lists::top_scored(ctx, x, weight, {p.window, p.block_size, p.rows == "all"})
      .score({.key_bias = weight});
}

}  // namespace

REGARD_DEFINE_RECIPE(dma) {
  static const Record r = recipe<Params>(
      {
          .name = "dma",
          .title = "Dynamic mask attention: values say which keys exist",
          .family = "dynamic",
          .paper = "Shi et al., Trainable Dynamic Mask Sparse Attention, 2025, arXiv 2508.02124",
          .year = 2025,
          .summary =
              "A learned map of each token's values gives its keys a weight in every head. The "
              "weight is added to the logits, and only the `window` keys of greatest weight among "
              "those a query sees are read.",
          .when = "Models trained with it (Doge). No query takes part in the choice.",
          .cost = "One small product a token; then window single keys a query.",
          .differs =
              "Each row keeps its own best keys among those it sees, as the authors' code does "
              "with a causal mask given; rows=all is that code without one: one set for all rows, "
              "future included, so early rows may read nothing. bias=exp is Hugging Face's Doge "
              "(exp of the weight, same choice). block_size is the code's smoothing of the mask. "
              "Query heads share their KV head's weight.",
          .needs = {"single", "weights"},
          .prefix = true,
          .twin = "",
      },
      plan,
      {param("dt", &Params::dt, "[1, 1, kv_heads dv, kv_heads]: map of all heads' values"),
       param("a", &Params::a, "one factor a KV head"),
       param("window", &Params::window, 1, 1e12, "keys a query reads"),
       param("bias", &Params::bias, {"plain", "exp"}, "the weight, or its exponential"),
       param("rows", &Params::rows, {"each", "all"}, "who chooses"),
       param("block_size", &Params::block_size, 1, 65536,
             "blocks of keys are read whole where more than half was chosen, else not at all")});
  return r;
}

}  // namespace regard
