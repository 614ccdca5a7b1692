#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t mask_k = 512;
  int64_t block_q = 32;
  int64_t block_k = 2;
  int64_t window = 128;
  int64_t sink = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return lists::tree_search(ctx, x,
                            {.mask_k = p.mask_k,
                             .block_q = p.block_q,
                             .block_k = p.block_k,
                             .window = p.window,
                             .sink = p.sink});
}

}  // namespace

REGARD_DEFINE_RECIPE(hip) {
  static const Record r = recipe<Params>(
      {
          .name = "hip",
          .title = "HiP: the best keys by a tree search",
          .family = "dynamic",
          .paper =
              "Lee et al., A Training-free Sub-quadratic Cost Transformer Model Serving Framework "
              "with Hierarchically Pruned Attention, ICLR 2025, arXiv 2406.09827",
          .year = 2024,
          .phase = "prefill",
          .summary =
              "For every block of queries the past is cut into mask_k / block_k pieces. Each "
              "piece splits in two, halves are judged by their first keys, the better half of all "
              "lives on, and so on down to single key blocks: the largest scores without looking "
              "at all.",
          .when = "Long contexts on any model. Greedy: a lone key is missed when nothing near the "
                  "first key of its piece speaks for it.",
          .cost = "mask_k * block_q / 2 products a level and block of queries, log2(n / mask_k) "
                  "levels; then (mask_k + window) single keys a query, gathered.",
          .differs =
              "The search of the authors' v1.1 reference with the plain representative. sink=32 "
              "is their kernel's rule whenever the window is on. The window is that of the block "
              "of queries, and the search may look at keys after a query of the block, as there. "
              "Their later versions (min and max representatives, stages) are not part.",
          .needs = {"causal", "single"},
          .twin = "mask_k=1e9",
          .sweep = {"mask_k", {128, 256, 512, 1024}},
      },
      plan,
      {param("mask_k", &Params::mask_k, 1, 1e12, "keys a query block keeps by search"),
       param("block_q", &Params::block_q, 1, 1024, "queries that share one search"),
       param("block_k", &Params::block_k, 1, 1024, "keys a leaf"),
       param("window", &Params::window, 0, 1e12, "last keys, always read"),
       param("sink", &Params::sink, 0, 1e12, "first keys, always read")});
  return r;
}

}  // namespace regard
