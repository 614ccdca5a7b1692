#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 64;
  int64_t window = 3;
  int64_t global = 1;
  int64_t random = 3;
  int64_t seed = 0;
  Tensor drawn;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const int64_t last = (x.problem.nk - 1) / b;
  const auto end = [&](int64_t t) { return t < p.global || t > last - p.global; };
  const TileBits fixed = keep::where(x.problem, b, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return std::abs(own - c) <= p.window / 2 || end(own) || end(c);
  });
  if (p.drawn) return Plan::tiles(x.problem, b, b, fixed | keep::listed(x.problem, b, b, p.drawn));
  const TileBits seen = x.causal ? keep::causal(x.problem, b, b) : keep::all(x.problem, b, b);
  const auto free = without(estimate::random(x.problem, b, b, p.seed),
                            fixed | (keep::all(x.problem, b, b) - seen));
  return Plan::tiles(
      x.problem, b, b,
      fixed | select(ctx, free, {.cut = Selector::Cut::top_k, .amount = double(p.random)}));
}

}  // namespace

REGARD_DEFINE_RECIPE(bigbird) {
  static const Record r = recipe<Params>(
      {
          .name = "bigbird",
          .title = "BigBird: window, global and random blocks",
          .family = "pattern",
          .paper = "Zaheer et al., Big Bird, NeurIPS 2020, arXiv 2007.14062",
          .year = 2020,
          .summary =
              "In blocks of tokens: every block reads its neighbours, the first and the last "
              "block, and a few blocks drawn at random for each head; the first and the last "
              "block read everything. Random links keep any two tokens few hops apart.",
          .when = "Encoders trained with it. Elsewhere a baseline for what chance buys.",
          .cost = "No scores. window + 2 * global + random blocks a row: linear in the length.",
          .differs =
              "Certain: the pattern of blocks (internal form, sizes 3, 2, 3). Our reading: under "
              "causality blocks are drawn among those a row sees, and draws come from a counter, "
              "so that a seed gives one pattern everywhere. The authors' code draws from the "
              "first 2r + 5 blocks of row r, may draw the window again in two rows and then "
              "counts it twice, and masks by -1e4; Long Range Arena draws within the first 1024 "
              "tokens only.",
          .needs = {"single"},
          .twin = "random=1e9",
          .sweep = {"random", {1, 3, 8, 16}},
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("window", &Params::window, 1, 1e6, "blocks around the own one, itself included; odd"),
       param("global", &Params::global, 0, 1e6, "blocks at each end that see and are seen"),
       param("random", &Params::random, 0, 1e12, "further blocks a row and head"),
       param("seed", &Params::seed, 0, 1e15, "which draw"),
       param("drawn", &Params::drawn,
             "[1|batch, 1|heads, rows of blocks, any]: random blocks of each row; -1: none")});
  return r;
}

}  // namespace regard
