#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t top_k = 100;
  int64_t block = 64;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores = estimate::pooled_means(ctx, x, b, b);
  const Selector best{.cut = Selector::Cut::top_k, .amount = double(p.top_k)};
  return Plan::tiles(x.problem, b, b, select(ctx, scores, best));
}

}  // namespace

REGARD_DEFINE_RECIPE(block_sparse) {
  static const Record r = recipe<Params>(
      {
          .name = "block_sparse",
          .title = "MInference: the best blocks by mean query and mean key",
          .family = "dynamic",
          .paper = "Jiang et al., MInference 1.0, NeurIPS 2024, arXiv 2407.02490",
          .year = 2024,
          .phase = "prefill",
          .summary =
              "Queries and keys are averaged over blocks; a query block reads the key blocks "
              "whose mean has the greatest product with its own.",
          .when =
              "Heads whose attention comes in patches. Means hide single keys, so facts that one "
              "token carries are easily missed.",
          .cost = "Scores cost 1 / block^2 of a QK product; then top_k blocks a row.",
          .differs =
              "As in paper and code the own block is not forced. The authors' code divides the "
              "last block's sum by the whole block though it is partial, and adds a block of "
              "zeros when the length is a multiple of the block; here a mean is over the tokens "
              "there are. Their released settings use this pattern in no head: the search's "
              "winners are rewritten to vertical_slash.",
          .needs = {"single"},
          .twin = "top_k=1e9",
          .sweep = {"top_k", {8, 16, 32, 64}},
      },
      plan,
      {param("top_k", &Params::top_k, 1, 1e12, "key blocks a query block reads"),
       param("block", &Params::block, 1, 65536, "tokens a block")});
  return r;
}

}  // namespace regard
