#include <cmath>

#include "recipes/recipe.h"
#include "stages/random.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 64;
  std::string falloff = "exp";
  double tau = 8;
  int64_t seed = 0;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto chance = [&](double distance) {
    return p.falloff == "exp" ? std::exp(-distance / p.tau) : p.tau / (p.tau + distance);
  };
  const TileBits drawn =
      keep::where(x.problem, b, b, x.problem.heads, [&](int64_t h, int64_t own, int64_t c) {
        return random_uniform(p.seed, h, own, c) < chance(double(std::abs(own - c)));
      });
  return Plan::tiles(x.problem, b, b, drawn);
}

}  // namespace

REGARD_DEFINE_RECIPE(prflash) {
  static const Record r = recipe<Params>(
      {
          .name = "prflash",
          .title = "PrFlashAttention: blocks by chance, rarer with distance",
          .family = "pattern",
          .paper =
              "PrFlashAttention: block distances as probabilities (known by its abstract only)",
          .year = 2024,
          .summary =
              "A block of keys takes part with a probability that falls with its distance from "
              "the query's block; the own block always does.",
          .when = "As a control: whatever chooses by content must beat it at equal density.",
          .cost = "No scores. Expected blocks a row: the sum of the probabilities.",
          .differs =
              "Only the abstract was to be had, which gives no formula. Certain: participation by "
              "chance, a function of block distance, causal shape kept. Everything else is our "
              "reading: exp(-distance / tau) or tau / (tau + distance), draws by counter, "
              "distance in both directions without causality. The inverse-probability correction "
              "is not part.",
          .needs = {"single"},
          .prefix = true,
          .twin = "tau=1e30",
          .sweep = {"tau", {2, 4, 8, 16}},
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("falloff", &Params::falloff, {"exp", "reciprocal"}, "how the chance falls"),
       param("tau", &Params::tau, 1e-6, 1e30, "blocks after which it has fallen by e, or by half"),
       param("seed", &Params::seed, 0, 1e15, "which draw")});
  return r;
}

}  // namespace regard
