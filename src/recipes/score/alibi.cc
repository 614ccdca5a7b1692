#include "recipes/recipe.h"
#include "stages/slopes.h"

namespace regard {
namespace {

struct Params {
  double strength = 1;
  double max_bias = 8;
  std::string rule = "nearest_power";
  Tensor slopes;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  const int64_t heads = x.problem.heads;
  const SlopeRule rule = p.rule == "geometric" ? SlopeRule::geometric : SlopeRule::nearest_power;
  const auto slopes =
      p.slopes ? per_head("ALiBi slopes", heads, p.slopes) : alibi_slopes(heads, p.max_bias, rule);
  return Plan::all(x.problem).score({.alibi = scaled(slopes, p.strength)});
}

}  // namespace

REGARD_DEFINE_RECIPE(alibi) {
  static const Record r = recipe<Params>(
      {
          .name = "alibi",
          .title = "ALiBi: attention with linear biases",
          .family = "score",
          .paper = "Press, Smith, Lewis, Train Short, Test Long, ICLR 2022, arXiv 2108.12409",
          .year = 2022,
          .summary =
              "Each head lowers a logit by its slope times the distance between query and key, "
              "instead of position embeddings. Slopes fall geometrically over the heads.",
          .when = "Models trained with it (BLOOM, MPT, MosaicBERT, where it is symmetric).",
          .cost = "Dense; one multiply-add a pair.",
          .differs =
              "The authors add slope * key position, which is the same softmax; their lse "
              "differs by slope * query position. For head counts that are no power of two "
              "they append every second slope of the doubled count (nearest_power); FlashBias "
              "uses one geometric series (geometric).",
          .prefix = true,
          .twin = "strength=0",
      },
      plan,
      {param("strength", &Params::strength, 0, 1e6, "multiplies all slopes; 0 = off"),
       param("max_bias", &Params::max_bias, 0, 64, "exponent of the smallest slope, 2^-max_bias"),
       param("rule", &Params::rule, {"nearest_power", "geometric"}, "slopes for any head count"),
       param("slopes", &Params::slopes, "one slope a query head, instead of the series")});
  return r;
}

}  // namespace regard
