#include <bit>

#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 64;
  int64_t window = 512;
  int64_t sink = 64;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto far = keep::where(x.problem, b, b, 1, [&](int64_t, int64_t own, int64_t c) {
    const int64_t distance = std::abs(own - c);
    return distance * b < p.window || distance == 0 || std::has_single_bit(uint64_t(distance));
  });
  return Plan::tiles(x.problem, b, b, far | keep::sink(x.problem, b, b, p.sink));
}

}  // namespace

REGARD_DEFINE_RECIPE(power) {
  static const Record r = recipe<Params>(
      {
          .name = "power",
          .title = "PowerAttention: distances that are powers of two",
          .family = "pattern",
          .paper = "Chen et al., PowerAttention: Exponentially Scaling of Receptive Fields for "
                   "Effective Sparse Attention, 2025, arXiv 2503.03588",
          .year = 2025,
          .summary =
              "A block of queries reads the blocks at distance 0, 1, 2, 4, 8, .., a local window "
              "and the first tokens. After L layers any token within 2^L blocks has been heard of.",
          .when =
              "Models trained or tuned with it. Untrained it loses what sits between the powers.",
          .cost = "No scores. window + log2(n / block) blocks a row: n log n in all.",
          .differs =
              "Certain: distance a power of two, in blocks, with window and sinks. Our reading: "
              "the sizes of window and sink (the paper matches them to a sliding window's "
              "budget), and symmetric distances without causality. No code of the authors was "
              "seen.",
          .needs = {"single"},
          .prefix = true,
          .twin = "window=1e12",
          .sweep = {"window", {256, 512, 1024, 2048}},
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("window", &Params::window, 0, 1e15, "tokens: blocks nearer than this are read"),
       param("sink", &Params::sink, 0, 1e12, "first tokens whose blocks every query reads")});
  return r;
}

}  // namespace regard
