#include "recipes/recipe.h"
#include "stages/amounts.h"

namespace regard {
namespace {

struct Params {
  double threshold = 0.9;
  int64_t block = 128;
  int64_t stride = 16;
  std::string forced = "paper";
  int64_t chunk = 16384;
  Tensor thresholds;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores = estimate::antidiagonal(ctx, x, b, int(p.stride));
  const TileBits none = keep::none(x.problem, b, b), first = keep::sink(x.problem, b, b, 1);
  const TileBits seen = x.causal ? keep::causal(x.problem, b, b) : keep::all(x.problem, b, b);
  const TileBits own = x.causal ? keep::diagonal(x.problem, b, b) : none;
  const TileBits both = x.causal ? own | first : none;
  const std::vector<double> each = amounts_of_heads(p.thresholds, scores);
  Selector best{.amount = p.threshold, .forced = &both};
  if (!each.empty()) best.amounts = &each;
  TileBits kept = select(ctx, scores, best);
  if (p.forced == "code") {
    const TileBits early = x.causal ? keep::rows_before(x.problem, b, b, p.chunk) : none;
    best.forced = &own, best.extra = 1;
    kept = first | (kept - early) | (select(ctx, scores, best) & early);
  }
  return Plan::tiles(x.problem, b, b, kept & seen);
}

}  // namespace

REGARD_DEFINE_RECIPE(xattention) {
  static const Record r = recipe<Params>(
      {
          .name = "xattention",
          .title = "XAttention: block-sparse attention by antidiagonal scores",
          .family = "dynamic",
          .paper = "Xu et al., XAttention, ICML 2025, arXiv 2503.16428",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "Each tile is scored by sums along the antidiagonals of stride x stride squares, "
              "which every column and every diagonal crosses. A softmax over squares turns them "
              "into a share of attention; a query tile keeps its best key tiles until `threshold` "
              "of it is covered, tile 0 and its own tile counted first.",
          .when = "Prefill of long prompts; adapts the number of tiles to each head and row. Lower "
                  "thresholds are sparser. Below about 2K tokens there is little to leave out.",
          .cost = "Scores cost 1/stride of a dense QK product; then the kept tiles.",
          .differs =
              "forced=code follows the authors' code: among queries before position `chunk` tile "
              "0 is not counted but always added, and one tile more is kept; elsewhere it is the "
              "paper's rule. Without causality paper forces nothing, code adds tile 0. The code "
              "pads keys to a multiple of its chunk and lets them into non-causal scores; here "
              "padding does not exist. Score terms beyond q.k (soft-cap, ALiBi) do not enter the "
              "estimate.",
          .needs = {"single"},
          .twin = "threshold=2",
          .sweep = {"threshold", {0.7, 0.8, 0.9, 0.95}},
      },
      plan,
      {param("threshold", &Params::threshold, 0, 2, "share of the estimated attention to cover"),
       param("block", &Params::block, 8, 1024, "tile side in tokens; a multiple of stride"),
       param("stride", &Params::stride, 1, 128, "side of the scored squares in tokens"),
       param("forced", &Params::forced, {"paper", "code"}, "rule for the tiles kept always"),
       param("chunk", &Params::chunk, 1, 1e12, "forced=code: first position beyond its chunk rule"),
       param("thresholds", &Params::thresholds,
             "[1,1,1,heads]: instead of `threshold`, one a head (the paper predicts them)")});
  return r;
}

}  // namespace regard
