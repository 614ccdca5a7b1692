#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double tau1 = 0.7, tau2 = 0.8, tau4 = 0.9, tau8 = 0.9;
  int64_t block_q = 128, block_k = 64, sampled = 4, seed = 0, text = 0;
  std::string importance = "paper", cut = "paper";
  Tensor q_offsets, k_offsets;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int bq = int(p.block_q), bk = int(p.block_k), each = bk / int(p.sampled);
  if (bk % 8 != 0) throw Error("psa: block_k is no multiple of 8");
  const auto scores = estimate::sampled(
      ctx, x, bq, bk, {each, each, p.seed, p.importance == "paper", p.q_offsets, p.k_offsets});
  const bool code = p.cut == "code", ratio = p.cut == "ratio";
  const auto cut = ratio ? Selector::Cut::top_k : Selector::Cut::coverage;
  const auto up_to = [&](double tau, int64_t n) {
    const double amount = ratio ? tau * double(scores.cols) : tau;
    return select(ctx, scores,
                  {.cut = cut, .amount = amount, .keep_crossing = code, .min_count = n});
  };
  // What causality cuts inside a tile cannot be pooled: those tiles are read as they are.
  const TileBits own = keep::where(x.problem, bq, bk, 1, [&](int64_t, int64_t at, int64_t c) {
    return (x.causal && at == c) || std::min((c + 1) * bk, x.problem.nk) > x.problem.nk - p.text;
  });
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
              "means of 2, 4, then 8 tokens (and weigh as many), the rest not at all.",
          .when = "Image and video models, where neighbouring tokens are alike.",
          .cost = "Scores: 1 / sampled^2 of a QK product. Pooled blocks cost 1/2, 1/4, 1/8.",
          .differs =
              "As in the paper the block that crosses a tau is dropped, so a row may read nothing; "
              "cut=code keeps it and reads at least 6 % in full. cut=ratio: a tau is a share of "
              "the blocks (theirs: .05, .15, .25, .5). importance=code skips the softmax's "
              "normaliser. Not part: Hilbert order, the cap by cosine. Our reading: tiles that "
              "causality cuts are read in full.",
          .needs = {"single"},
          .twin = "tau1=2",
          .sweep = {"tau1", {0.5, 0.6, 0.7, 0.8}},
      },
      plan,
      {param("tau1", &Params::tau1, 0, 2, "importance covered by blocks read in full"),
       param("tau2", &Params::tau2, 0, 2, "and by those read as means of 2 tokens"),
       param("tau4", &Params::tau4, 0, 2, "and of 4"), param("tau8", &Params::tau8, 0, 2, "of 8"),
       param("block_q", &Params::block_q, 8, 1024, "queries a tile"),
       param("block_k", &Params::block_k, 8, 1024, "keys a tile; a multiple of 8"),
       param("sampled", &Params::sampled, 1, 8, "one of so many tokens is sampled"),
       param("importance", &Params::importance, {"paper", "code"}, "normalised or not"),
       param("cut", &Params::cut, {"paper", "code", "ratio"}, "what a tau cuts"),
       param("text", &Params::text, 0, 1e12, "last tokens, whose blocks are read in full"),
       param("seed", &Params::seed, 0, 1e15, "which sample"),
       param("q_offsets", &Params::q_offsets, "sample in a tile [1|batch, 1|heads, 1, any]"),
       param("k_offsets", &Params::k_offsets, "the same for keys")});
  return r;
}

}  // namespace regard
