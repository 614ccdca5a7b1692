#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  double threshold = 0.9;
  int64_t block_size = 128;
  int64_t segment_size = 256;
  bool force_select_first_block = true;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  if (x.problem.nk <= p.segment_size) return Plan::all(x.problem);
  const int b = int(p.block_size);
  const int64_t b64 = p.block_size, segment = p.segment_size;
  const auto keys = order::by_importance(ctx, x, segment, b64);
  const TileBits own = keep::where(x.problem, b, b, 1, [&](int64_t, int64_t q, int64_t k) {
    return q >= 0 && q * b64 / segment == k * b64 / segment;
  });
  const auto scores = row_softmax(without(estimate::pooled_means(ctx, x, b, b, keys.get()), own));
  TileBits kept = own | select(ctx, scores, {.amount = p.threshold});
  if (p.force_select_first_block) kept = kept | order::blocks_of(x.problem, b, b, *keys, 0);
  return Plan::tiles(x.problem, b, b, kept).order({nullptr, keys});
}

}  // namespace

REGARD_DEFINE_RECIPE(pbs) {
  static const Record r = recipe<Params>(
      {
          .name = "pbs",
          .title = "PBS-Attn: keys sorted inside segments, then block-sparse",
          .family = "dynamic",
          .paper = "Wang et al., Sparser Block-Sparse Attention via Token Permutation, 2025, arXiv "
                   "2510.21270",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "Softmax does not mind the order of keys. Inside each segment keys are sorted by the "
              "attention that the last queries give them, so that important ones share blocks. "
              "Mean query and mean key choose blocks of earlier segments until `threshold` of the "
              "estimate is covered; the own segment is always read.",
          .when =
              "Prefill of long prompts where a few tokens of every stretch matter; fewer blocks "
              "than unsorted block selection at the same share.",
          .cost = "Probe: block_size * nk * dk a head, a sort a segment, scores 1 / block^2 of a "
                  "QK product. Then the kept blocks, gathered in sorted order.",
          .differs =
              "Certain from the authors' code: probe over whole segments without causal mask, "
              "stable sort, selection over earlier segments with the crossing block kept, forced "
              "blocks (own segment, the block with token 0). Their cut selects nothing where "
              "rounding keeps the sum below a threshold of 1.0, and the integer 1 fails without "
              "the forced block; here a threshold not reached keeps everything. Queries stay in "
              "place, as by default there. On a strip the probe is the strip's last queries.",
          .needs = {"causal", "single"},
          .twin = "threshold=2",
      },
      plan,
      {param("threshold", &Params::threshold, 0, 2, "share of the estimated attention to cover"),
       param("block_size", &Params::block_size, 8, 1024, "tile side in tokens"),
       param("segment_size", &Params::segment_size, 8, 65536,
             "tokens sorted together; a multiple of block_size"),
       param("force_select_first_block", &Params::force_select_first_block,
             "always read the block that holds token 0")});
  return r;
}

}  // namespace regard
