#include <cmath>

#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  Tensor q_gate, k_gate;
  std::string cut = "threshold";
  double threshold = 2e-3;
  double sparsity = 0.8;
  int64_t block = 64;
  int64_t dense_rows = 2;
  double rope = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const bool by_value = p.cut == "threshold", future = p.cut == "nz_ratio";
  Inputs seen = x;
  seen.causal = x.causal && !future;
  const auto gate = row_softmax(estimate::learned_gate(ctx, seen, p.q_gate, p.k_gate, b, p.rope));
  const TileBits best =
      select(ctx, gate,
             {.cut = by_value ? Selector::Cut::threshold : Selector::Cut::top_k,
              .amount = by_value ? p.threshold : (1 - std::sqrt(p.sparsity)) * double(gate.cols),
              .min_count = by_value ? 0 : 1});
  const int64_t late = (x.problem.nk + b - 1) / b - p.dense_rows;
  return Plan::tiles(x.problem, b, b,
                     best | keep::where(x.problem, b, b, 1, [&](int64_t, int64_t own, int64_t) {
                       return own >= late;
                     }));
}

}  // namespace

REGARD_DEFINE_RECIPE(seer) {
  static const Record r = recipe<Params>(
      {
          .name = "seer",
          .title = "SeerAttention: a learned gate picks the blocks",
          .family = "dynamic",
          .paper = "Gao et al., SeerAttention, NeurIPS 2025, arXiv 2410.13276",
          .year = 2024,
          .phase = "prefill",
          .summary =
              "A small gate, distilled from the model's own attention, predicts the map of blocks "
              "from pooled queries (mean) and keys (maximum, minimum, mean). Blocks above a "
              "threshold are read, and the last rows of blocks read everything.",
          .when = "Models that a gate was trained for; then few blocks carry nearly all the mass.",
          .cost = "Pooling, and a product of width `width` for each pair of blocks.",
          .differs = "As in the code the own block is not forced and the last two rows of blocks "
                     "are dense. cut=ratio keeps the share 1 - sqrt(sparsity) of the blocks; "
                     "cut=nz_ratio is the code's (1 - sparsity in its terms): early rows spend on "
                     "future blocks and may read nothing. Pooling wants q and k before rotation: "
                     "`rope` undoes the model's. The released gates have no query map: give the "
                     "identity.",
          .needs = {"causal", "single", "weights"},
          .twin = "",
      },
      plan,
      {param("q_gate", &Params::q_gate, "[1, heads, dk, width]: the gate's map of mean queries"),
       param("k_gate", &Params::k_gate,
             "[1, heads, 3 dk, width]: its map of maximum, minimum and mean keys"),
       param("cut", &Params::cut, {"threshold", "ratio", "nz_ratio"},
             "by the gate's value, or a fixed share"),
       param("threshold", &Params::threshold, -1, 1, "share of a row above which a block is read"),
       param("sparsity", &Params::sparsity, 0, 1, "cut=ratio: share of the causal area left out"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("dense_rows", &Params::dense_rows, 0, 1e9, "last rows of blocks that read everything"),
       param("rope", &Params::rope, 0, 1e12, "base of the rotation of q and k; 0: none")});
  return r;
}

}  // namespace regard
