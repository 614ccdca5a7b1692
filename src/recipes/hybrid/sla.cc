#include <cmath>

#include "recipes/recipe.h"
#include "stages/features.h"

namespace regard {
namespace {

struct Params {
  double critical = 0.05;
  double negligible = 0.1;
  std::string linear = "marginal";
  std::string features = "softmax";
  int64_t block = 64;
  Tensor projection, bias;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores = estimate::pooled_means(ctx, x, b, b);
  const auto best = [&](double count) {
    return select(ctx, scores, {.cut = Selector::Cut::top_k, .amount = count, .min_count = 1});
  };
  const double blocks = double(scores.cols);
  const TileBits critical = best(std::floor(p.critical * blocks));
  const TileBits seen = x.causal ? keep::causal(x.problem, b, b) : keep::all(x.problem, b, b);
  const TileBits linear = p.linear == "all" ? seen
                          : p.linear == "rest"
                              ? seen - critical
                              : best(blocks - std::floor(p.negligible * blocks)) - critical;
  return Plan::gated({Plan::tiles(x.problem, b, b, critical),
                      Plan::tiles(x.problem, b, b, linear)
                          .weight(features::named(p.features))
                          .value_map(features::output_map(x.problem, p.projection, p.bias))},
                     estimate::constant_gate(x.problem, {1, 1}));
}

}  // namespace

REGARD_DEFINE_RECIPE(sla) {
  static const Record r = recipe<Params>(
      {
          .name = "sla",
          .title = "SLA: the critical blocks exactly, the middling ones linearly",
          .family = "hybrid",
          .paper = "Zhang et al., SLA: Beyond Sparsity in Diffusion Transformers via Fine-Tunable "
                   "Sparse-Linear Attention, ICLR 2026, arXiv 2509.24006",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "Blocks of keys are ranked by products of means. The best few are read exactly, the "
              "worst few not at all, and those between by linear attention, whose result passes "
              "through a learned layer and is added.",
          .when = "Diffusion models fine-tuned with it; the layer starts at zero, which is plain "
                  "block-sparse attention.",
          .cost = "Means and their products: 1 / block of a QK product. Then `critical` of exact "
                  "attention and a feature map of linear cost.",
          .differs =
              "Certain from paper and code: ranking, exact and linear parts, the layer. The code "
              "has no negligible blocks: linear=rest is its branch SLA-1, linear=all its main "
              "branch, where critical blocks count twice (there with 1e-5 in the denominator). "
              "Counts are int(share * blocks) as there, at least one critical, and under causality "
              "of all blocks. A row without linear blocks adds nothing, there the bias.",
          .needs = {"single", "weights"},
          .twin = "",
      },
      plan,
      {param("critical", &Params::critical, 0, 1, "share of the blocks read exactly"),
       param("negligible", &Params::negligible, 0, 1, "linear=marginal: share left out"),
       param("linear", &Params::linear, {"marginal", "rest", "all"}, "blocks read linearly"),
       param("features", &Params::features, {"softmax", "elu", "relu"}, "the feature map"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("projection", &Params::projection, "the layer's weight [1, 1, dv, dv], rows outputs"),
       param("bias", &Params::bias, "the layer's bias, dv numbers")});
  return r;
}

}  // namespace regard
