#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 16;
  int64_t blocks = 16;
  int64_t init = 1;
  int64_t local = 1;
  bool full = false;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  if (p.full) return Plan::all(x.problem);
  const int b = int(p.block);
  const TileBits forced = keep::where(x.problem, 1, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return c <= own && (c < p.init || own - c <= p.local);
  });
  const Selector best{.cut = Selector::Cut::top_k, .amount = double(p.blocks), .forced = &forced};
  return Plan::tiles(x.problem, 1, b,
                     estimate::best_compressed(
                         ctx, x, {.width = p.block, .stride = p.block, .block = p.block}, best));
}

}  // namespace

REGARD_DEFINE_RECIPE(ssa) {
  static const Record r = recipe<Params>(
      {
          .name = "ssa",
          .title = "SSA: a model trained to run sparse or full",
          .family = "dynamic",
          .paper = "Shen et al., SSA: Sparse Sparse Attention by Aligning Full and Sparse "
                   "Attention Outputs in Feature Space, 2025, arXiv 2511.20102",
          .year = 2025,
          .summary = "Training aligns full and sparse outputs in every layer, so the model runs "
                     "either way. Sparse means: each query of each group of heads reads the "
                     "blocks whose mean keys get most of its attention.",
          .when = "Models trained with it. full=true is the other way to run them.",
          .cost = "Means: 1 / block of a QK product; then blocks * block keys a query.",
          .differs =
              "Certain: the selected branch of NSA alone, 16 blocks of 16 tokens, no window, one "
              "set a group. Our reading: which blocks are always in (first, own, the one before), "
              "and scores from attention to whole blocks' means. The output gate shared by both "
              "ways and the alignment loss belong to the model.",
          .needs = {"causal", "single"},
          .prefix = true,
          .twin = "full=true",
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("blocks", &Params::blocks, 1, 1e9, "blocks a query reads, forced ones included"),
       param("init", &Params::init, 0, 1e9, "first blocks, always read"),
       param("local", &Params::local, 0, 1e9, "blocks before the own one, always read"),
       param("full", &Params::full, "run the full stream")});
  return r;
}

}  // namespace regard
