#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double select = 0.3;
  int64_t block = 128;
  int64_t generated = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto best = [&](const BlockScores& mass) {
    return select(ctx, mass,
                  {.cut = Selector::Cut::top_k, .amount = p.select * double(mass.cols) + 1});
  };
  const TileBits prompt = best(estimate::block_mass(ctx, x, b, b));
  if (p.generated == 0) return Plan::tiles(x.problem, b, b, prompt);
  // The generated tokens' blocks compete among themselves, by a softmax over them alone.
  const int64_t first =
      std::min((std::max<int64_t>(0, x.problem.nk - p.generated) + b - 1) / b, prompt.cols - 1);
  const Inputs late = estimate::from_key(x, first * b);
  const TileBits own = best(estimate::block_mass(ctx, late, b, b));
  const TileBits old = keep::sink(x.problem, b, b, first * b);
  return Plan::tiles(x.problem, b, b, (prompt & old) | keep::moved(own, prompt.cols, first));
}

}  // namespace

REGARD_DEFINE_RECIPE(sparsed) {
  static const Record r = recipe<Params>(
      {
          .name = "sparsed",
          .title = "SparseD: one exact block mask a head for a diffusion language model",
          .family = "dynamic",
          .paper = "Wang et al., SparseD: Sparse Attention for Diffusion Language Models, 2025, "
                   "arXiv 2509.24014",
          .year = 2025,
          .phase = "any",
          .summary =
              "Attention is computed exactly once and averaged over blocks; each query block "
              "keeps its best key blocks. The mask is kept for the denoising steps that follow, "
              "where patterns hardly change. Blocks of generated tokens compete apart.",
          .when =
              "Diffusion language models: plan once after the early dense steps, run the plan in "
              "all later ones. For a single pass it costs more than it saves.",
          .cost = "Planning is a whole QK product; then select of the tiles.",
          .differs =
              "The count is int(blocks * select) + 1, cut to what there is (the code raises at "
              "select=1); scale 1/sqrt(d) as in the Dream code (the LLaDA code divides by the "
              "root of the number of heads). Steps are the caller's: this plans at one step. "
              "Under causality (our reading) the same, cut to what a row sees.",
          .needs = {"single"},
          .twin = "select=1",
          .sweep = {"select", {0.1, 0.2, 0.3, 0.5}},
      },
      plan,
      {param("select", &Params::select, 0, 1, "share of the key blocks a row keeps"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("generated", &Params::generated, 0, 1e12, "last tokens, whose blocks compete apart")});
  return r;
}

}  // namespace regard
