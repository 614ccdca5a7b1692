#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  double gamma = 0.9;
  double tau = 0.1;
  int64_t min_budget = 1024;
  int64_t block = 128;
  std::string cut = "paper";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const int64_t least = (p.min_budget + b - 1) / b;
  const auto probe = estimate::probe_tiles(ctx, x, b, p.gamma);
  const auto vertical_slash = lists::vertical_slash_tiles(ctx, x, probe, least, false);
  const TileBits query_aware =
      keep::heads_below(x.problem, b, b, estimate::divergence(ctx, x, probe), p.tau);
  if (query_aware.count() == 0) return Plan::tiles(x.problem, b, b, vertical_slash);
  const auto smallest = lists::vertical_slash_tiles(ctx, x, probe, least, true);
  const auto map = row_softmax(estimate::pooled_means(ctx, x, b, b));
  const TileBits best = select(ctx, map,
                               {.amount = p.gamma,
                                .scope = Selector::Scope::head,
                                .keep_crossing = p.cut == "paper",
                                .heads = &query_aware});
  return Plan::tiles(x.problem, b, b,
                     (vertical_slash - query_aware) | ((smallest | best) & query_aware));
}

}  // namespace

REGARD_DEFINE_RECIPE(flexprefill) {
  static const Record r = recipe<Params>(
      {
          .name = "flexprefill",
          .title = "FlexPrefill: each head's pattern and budget from the prompt at hand",
          .family = "dynamic",
          .paper = "Lai et al., FlexPrefill, ICLR 2025, arXiv 2502.20766",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "The last block of queries attends exactly. Where block means predict its attention "
              "well (divergence below `tau`) the head takes the best tiles of the whole pooled "
              "map; elsewhere the columns and diagonals that its probe weighs most. Both until "
              "`gamma` of the mass is covered.",
          .when = "Prompts from about 8K tokens on; budgets follow the text, head by head.",
          .cost = "Probe: block * nk * dk a head; pooled map 1 / block^2 of a QK product.",
          .differs =
              "cut=code drops the tile that crosses gamma in the pooled map, as the authors' code "
              "does. As there, columns and diagonals are counted in tokens, and tokens / block + "
              "1 tiles are taken (their 128 is fixed). Our reading: diagonals are pooled from the "
              "nearest on (their code starts at the farthest, so a ragged length leaves a short "
              "nearest group), zero shares count as zero in the divergence (theirs becomes NaN, "
              "hence columns and diagonals), and tokens' sums are f32. Rows of one call compete "
              "in the pooled map.",
          .needs = {"causal", "single"},
          .twin = "gamma=2",
          .sweep = {"gamma", {0.7, 0.8, 0.9, 0.95}},
      },
      plan,
      {param("gamma", &Params::gamma, 0, 2, "share of the attention to cover"),
       param("tau", &Params::tau, 0, 10, "divergence below which a head uses the pooled map"),
       param("min_budget", &Params::min_budget, 1, 1e12, "tokens of columns, and of diagonals"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("cut", &Params::cut, {"paper", "code"}, "the crossing tile of the pooled map")});
  return r;
}

}  // namespace regard
