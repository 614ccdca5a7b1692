#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t vertical_size = 1000;
  int64_t slash_size = 6096;
  int64_t last_q = 64;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  auto scores = estimate::vertical_slash(ctx, x, int(p.last_q));
  lists::force(scores, /*columns=*/30, /*diagonals=*/100);
  const auto kept =
      lists::vertical_slash(ctx, x.problem, scores, std::max<int64_t>(p.vertical_size, 30),
                            std::max<int64_t>(p.slash_size, 50));
  return Plan::same({Plan::tiles(x.problem, kept.bq, kept.bk, kept.tiles),
                     Plan::columns(x.problem, kept.columns)});
}

}  // namespace

REGARD_DEFINE_RECIPE(vertical_slash) {
  static const Record r = recipe<Params>(
      {
          .name = "vertical_slash",
          .title = "MInference: vertical columns and slash diagonals",
          .family = "dynamic",
          .paper = "Jiang et al., MInference 1.0, NeurIPS 2024, arXiv 2407.02490",
          .year = 2024,
          .phase = "prefill",
          .summary =
              "The last queries attend exactly, as a probe. Summed down columns, their "
              "probabilities say which keys matter to all; summed along diagonals, which "
              "distances do. The best columns and diagonals of each head are kept, diagonals "
              "thickened to 64 keys, always with the first 30 columns and nearest 100 diagonals.",
          .when =
              "Prefill of long prompts where the last queries look where the others do. Small "
              "budgets such as vertical_size=500,slash_size=700 make it sparse below 10K tokens; "
              "the defaults are for 100K and more. On a strip the probe is the strip's last "
              "queries.",
          .cost = "Probe: last_q * nk * dk a head. Then about (vertical_size + 64 * distinct "
                  "diagonal runs) keys a query. The defaults gain from 16K tokens on.",
          .differs =
              "The kept tokens are those of the authors' index builder and kernel. Ties, which "
              "there depend on the sort, go to the lower key and the nearer diagonal; so with "
              "slash_size below 100 the nearest diagonals stay. Their search scores without "
              "1/sqrt(d) and forces 30 diagonals; this is the run-time rule. The model's "
              "soft-cap, biases and sinks enter the probe.",
          .needs = {"causal", "single"},
          .twin = "vertical_size=1e9,slash_size=1e9",
          .sweep = {"slash_size", {300, 700, 1500, 3000}},
      },
      plan,
      {param("vertical_size", &Params::vertical_size, 0, 1e12,
             "columns a head; at least 30 are kept"),
       param("slash_size", &Params::slash_size, 0, 1e12, "diagonals a head; at least 50 are kept"),
       param("last_q", &Params::last_q, 1, 65536, "queries of the probe")});
  return r;
}

}  // namespace regard
