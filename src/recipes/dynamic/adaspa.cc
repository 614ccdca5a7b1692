#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double sparsity = 0.8;
  int64_t block = 64;
  int64_t text = 0;
  bool adaptive = true;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto mass = estimate::block_mass(ctx, x, b, b);
  Selector best{.cut = Selector::Cut::top_k,
                .amount = (1 - p.sparsity) * double(mass.cols),
                .round = Selector::Round::ceil};
  TileBits kept = select(ctx, mass, best);
  const std::vector<double> budgets = adaptive_budgets(mass, kept, p.sparsity);
  best.amounts = &budgets;
  if (p.adaptive) kept = select(ctx, mass, best);
  const int64_t first = x.problem.nk - p.text;
  return Plan::tiles(x.problem, b, b,
                     kept | keep::where(x.problem, b, b, 1, [&](int64_t, int64_t own, int64_t c) {
                       return std::min((std::max(own, c) + 1) * b, x.problem.nk) > first;
                     }));
}

}  // namespace

REGARD_DEFINE_RECIPE(adaspa) {
  static const Record r = recipe<Params>(
      {
          .name = "adaspa",
          .title = "AdaSpa: exact block mass, budgets by head",
          .family = "dynamic",
          .paper = "Xia et al., Training-free and Adaptive Sparse Attention for Efficient Long "
                   "Video Generation (AdaSpa), ICCV 2025, arXiv 2502.21079",
          .year = 2025,
          .phase = "any",
          .summary =
              "The attention mass of every block is measured exactly; each query block keeps the "
              "heaviest. Heads that keep more than 0.8 of their mass lend budget to the worst "
              "ones, the mean staying as it was.",
          .when = "Video diffusion: search at two steps of fifty, reuse the plan between. For a "
                  "single pass it costs more than it saves.",
          .cost = "Planning is a whole QK product; then 1 - sparsity of the tiles.",
          .differs =
              "From the paper; no code was seen. Certain: exact block mass, fixed share a row, "
              "the three sparsities of heads. Our reading: counts round up, at most half of the "
              "heads lend, text stands last and is always read and reads all. The reuse of an "
              "earlier step's normaliser only saves time and is not part: here it is exact.",
          .needs = {"single"},
          .twin = "sparsity=0,adaptive=false",
          .sweep = {"sparsity", {0.9, 0.8, 0.7, 0.5}},
      },
      plan,
      {param("sparsity", &Params::sparsity, 0, 1, "share of the key blocks left out"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("text", &Params::text, 0, 1e12, "last tokens, which see and are seen"),
       param("adaptive", &Params::adaptive, "heads lend budget to each other")});
  return r;
}

}  // namespace regard
