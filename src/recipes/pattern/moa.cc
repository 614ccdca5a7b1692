#include <cmath>

#include "recipes/recipe.h"
#include "stages/lists.h"
#include "stages/slopes.h"

namespace regard {
namespace {

struct Params {
  double alpha = 0, beta = 0.5;
  Tensor alphas, betas;
  int64_t sink = 64, block = 64, max_new_token = 0;
  std::string rule = "profile";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t heads = x.problem.heads, n = x.problem.nk, b = p.block;
  const auto alpha = p.alphas ? per_head("MoA alphas", heads, p.alphas)
                              : std::vector<float>(size_t(heads), float(p.alpha));
  const auto beta = p.betas ? per_head("MoA betas", heads, p.betas)
                            : std::vector<float>(size_t(heads), float(p.beta));
  if (p.rule == "runtime")
    return lists::by_position(ctx, x, heads, [&](int64_t h, int64_t i, lists::Ranges* out) {
      const double all = double(n + p.max_new_token);
      const double span =
          std::clamp(std::trunc(alpha[h] + double(beta[h]) * all), 128.0, std::max(128.0, all));
      const int64_t window = (int64_t(span) + b - 1) / b * b - p.sink;
      out->push_back({0, p.sink});
      out->push_back({i - window + 1, i + window});
    });
  const int64_t blocks = (n + b - 1) / b;
  const TileBits near =
      keep::where(x.problem, int(b), int(b), heads, [&](int64_t h, int64_t own, int64_t c) {
        const double band = std::trunc(std::floor(alpha[h] / b) + double(beta[h]) * blocks);
        return std::abs(own - c) < std::max(1.0, band);
      });
  return Plan::tiles(x.problem, int(b), int(b),
                     near | keep::sink(x.problem, int(b), int(b), p.sink));
}

}  // namespace

REGARD_DEFINE_RECIPE(moa) {
  static const Record r = recipe<Params>(
      {
          .name = "moa",
          .title = "MoA: windows that grow with the length, head by head",
          .family = "pattern",
          .paper = "Fu et al., MoA: Mixture of Sparse Attention, 2024, arXiv 2406.14909",
          .year = 2024,
          .summary =
              "Each head has its own window of alpha + beta * n tokens, and the first tokens. A "
              "search over gradients finds each head's alpha and beta under a density bound; "
              "their result comes in as `alphas` and `betas`.",
          .when =
              "With spans searched for the model at hand. Without them every head gets the same "
              "window, which is a plain one.",
          .cost = "No scores. alpha + beta * n + sink keys a query.",
          .differs =
              "profile is the rule that the search scores (blocks, plus one block of sinks); "
              "runtime is that of the authors' cache: at least 128 tokens, rounded up to blocks, "
              "sinks inside the span, n the keys and max_new_token. The search is not part.",
          .needs = {"single"},
          .twin = "beta=1",
          .sweep = {"beta", {0.1, 0.25, 0.5}},
      },
      plan,
      {param("alpha", &Params::alpha, -1e12, 1e12, "tokens, in every head"),
       param("beta", &Params::beta, 0, 1e6, "share of the keys, in every head"),
       param("alphas", &Params::alphas, "one alpha a query head"),
       param("betas", &Params::betas, "one beta a query head"),
       param("sink", &Params::sink, 0, 1e12, "first tokens"),
       param("block", &Params::block, 1, 65536, "tokens that spans are rounded to"),
       param("rule", &Params::rule, {"profile", "runtime"}, "from span to window"),
       param("max_new_token", &Params::max_new_token, 0, 1e12, "runtime: tokens still to come")});
  return r;
}

}  // namespace regard
