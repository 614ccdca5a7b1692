#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double gamma = 0.95;
  int64_t groups = 1;
  int64_t stride = 4;
  int64_t block = 128;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores = estimate::proxy_heads(ctx, x, b, int(p.stride), p.groups);
  const auto probe = estimate::on_host(estimate::vertical_slash(ctx, x, b));
  const std::vector<double> budgets = covering_budgets(x, probe, b, b, p.gamma);
  const TileBits forced = keep::sink(x.problem, b, b, 1) | keep::diagonal(x.problem, b, b);
  const TileBits seen = x.causal ? keep::causal(x.problem, b, b) : keep::all(x.problem, b, b);
  const Selector best{.cut = Selector::Cut::top_k, .amounts = &budgets};
  return Plan::tiles(x.problem, b, b, (forced | select(ctx, scores, best)) & seen);
}

}  // namespace

REGARD_DEFINE_RECIPE(proxyattn) {
  static const Record r = recipe<Params>(
      {
          .name = "proxyattn",
          .title = "ProxyAttn: averaged heads score blocks for all",
          .family = "dynamic",
          .paper = "Wang et al., ProxyAttn: Guided Sparse Attention via Representative Heads, "
                   "ICLR 2026, arXiv 2509.24745",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "Heads look at much the same tokens and differ in how many they need. So one "
              "averaged head per group scores blocks from single tokens, one of every `stride`, "
              "and each head takes as many of the best blocks as its own last queries need to "
              "cover `gamma`.",
          .when = "Prefill of long prompts where block means are too coarse.",
          .cost =
              "Scores: groups / heads / stride^2 of a QK product; probe: block * nk * dk a head.",
          .differs =
              "Certain: averaged heads, sampled tokens, largest probability of a block, budgets "
              "by head from the last queries. Our reading: the first token of each stride, the "
              "budget's share rounded up over the blocks a row sees, first and own block on top "
              "of it, and the defaults. The authors name a repository (wyxstriker/ProxyAttn), of "
              "which no copy could be had: what its code does otherwise is not known here.",
          .needs = {"single"},
          .twin = "gamma=2",
          .sweep = {"gamma", {0.7, 0.8, 0.9, 0.95}},
      },
      plan,
      {param("gamma", &Params::gamma, 0, 2, "share of the last queries' attention to cover"),
       param("groups", &Params::groups, 1, 1e6,
             "averaged heads; divides the query heads (more than there are: one a head)"),
       param("stride", &Params::stride, 1, 1024, "tokens from one sampled token to the next"),
       param("block", &Params::block, 8, 1024, "tokens a block; a multiple of stride")});
  return r;
}

}  // namespace regard
