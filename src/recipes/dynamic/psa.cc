#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double tau1 = 0.7, tau2 = 0.8, tau4 = 0.9, tau8 = 0.9;
  int64_t block_q = 128;
  int64_t block_k = 64;
  int64_t sampled = 4;
  std::string importance = "paper";
  std::string cut = "paper";
  int64_t seed = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int bq = int(p.block_q), bk = int(p.block_k);
  if (bk % 8 != 0) throw Error("psa: block_k is no multiple of 8");
  const auto scores = estimate::sampled(ctx, x, bq, bk,
                                        {.queries = bk / p.sampled,
                                         .keys = bk / p.sampled,
                                         .seed = p.seed,
                                         .normalised = p.importance == "paper"});
  const bool code = p.cut == "code";
  const auto up_to = [&](double tau, int64_t n) {
    return select(ctx, scores, {.amount = tau, .keep_crossing = code, .min_count = n});
  };
  // What causality cuts inside a tile cannot be pooled: those tiles are read as they are.
  const TileBits own = x.causal ? keep::diagonal(x.problem, bq, bk) : keep::none(x.problem, bq, bk);
  const TileBits by1 = own | up_to(p.tau1, code ? int64_t(0.06 * scores.cols) + 1 : 0);
  const TileBits by2 = by1 | up_to(p.tau2, 0), by4 = by2 | up_to(p.tau4, 0);
  const auto level = [&](const TileBits& bits, int tokens) {
    return Plan::tiles(x.problem, bq, bk / tokens, bits).pooled(tokens);
  };
  return Plan::same({Plan::tiles(x.problem, bq, bk, by1), level(by2 - by1, 2), level(by4 - by2, 4),
                     level(up_to(p.tau8, 0) - by4, 8)});
}

}  // namespace

REGARD_DEFINE_RECIPE(psa) {
  static const Record r = recipe<Params>(
      {
          .name = "psa",
          .title = "PSA: blocks read in full, or as means of 2, 4 or 8 tokens",
          .family = "dynamic",
          .paper = "Li et al., PSA: Pyramid Sparse Attention, 2025, arXiv 2512.04025",
          .year = 2025,
          .phase = "any",
          .summary =
              "Blocks that cover tau1 of a sampled importance are read as they are, the next as "
              "means of 2 tokens, then of 4, of 8, the rest not at all. A mean of w tokens weighs "
              "as much as w.",
          .when = "Image and video models, where neighbouring tokens are alike.",
          .cost = "Scores: 1 / sampled^2 of a QK product. Pooled blocks cost 1/2, 1/4, 1/8.",
          .differs =
              "As in the paper the block that crosses a tau is dropped, so a row that one block "
              "dominates may read nothing; cut=code keeps it and reads at least 6 % in full. "
              "importance=code skips the softmax's normaliser, as their kernel does. Not part: "
              "Hilbert order, the cap by neighbours' cosine, fixed ratios. Our reading: tiles "
              "that causality cuts are read in full; draws come from a counter.",
          .needs = {"single"},
          .twin = "tau1=2",
          .sweep = {"tau1", {0.5, 0.6, 0.7, 0.8}},
      },
      plan,
      {param("tau1", &Params::tau1, 0, 2, "importance covered by blocks read in full"),
       param("tau2", &Params::tau2, 0, 2, "and by those read as means of 2 tokens"),
       param("tau4", &Params::tau4, 0, 2, "and of 4"),
       param("tau8", &Params::tau8, 0, 2, "and of 8"),
       param("block_q", &Params::block_q, 8, 1024, "queries a tile"),
       param("block_k", &Params::block_k, 8, 1024, "keys a tile; a multiple of 8"),
       param("sampled", &Params::sampled, 1, 8, "one of so many tokens is sampled"),
       param("importance", &Params::importance, {"paper", "code"}, "normalised or not"),
       param("cut", &Params::cut, {"paper", "code"}, "the block that crosses a tau"),
       param("seed", &Params::seed, 0, 1e15, "which sample")});
  return r;
}

}  // namespace regard
