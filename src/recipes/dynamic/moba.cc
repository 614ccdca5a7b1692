#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t chunk = 512;
  int64_t topk = 3;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int chunk = int(p.chunk);
  const auto gates = estimate::pooled_means(ctx, x, 1, chunk);
  const TileBits own = keep::diagonal(x.problem, 1, chunk);
  const Selector best{
      .cut = Selector::Cut::top_k, .amount = double(p.topk), .forced = &own, .forced_counts = true};
  return Plan::tiles(x.problem, 1, chunk, select(ctx, gates, best));
}

}  // namespace

REGARD_DEFINE_RECIPE(moba) {
  static const Record r = recipe<Params>(
      {
          .name = "moba",
          .title = "MoBA: each query reads its own chunk and the best of the past",
          .family = "dynamic",
          .paper = "Lu et al., MoBA: Mixture of Block Attention, 2025, arXiv 2502.13189",
          .year = 2025,
          .summary = "The past is cut into chunks; a query's product with a chunk's mean key is "
                     "the chunk's gate. Each query of each head reads its own chunk, causally, "
                     "and the chunks with the greatest gates, topk in all.",
          .when = "Models trained with it; prefill and decode alike. Untrained, chunk means hide "
                  "single facts.",
          .cost =
              "Gates: 1 / chunk of a QK product. Each query chooses for itself, so tiles have one "
              "row: a CPU gains where topk * chunk is well below the length, by default from 16K "
              "tokens on.",
          .differs =
              "topk counts the own chunk. The authors' code takes means in the keys' own type; "
              "here in f32. Without causality (our reading) the own chunk stays and all others "
              "compete.",
          .needs = {"single"},
          .prefix = true,
          .twin = "topk=1e9",
      },
      plan,
      {param("chunk", &Params::chunk, 1, 1e9, "tokens a chunk"),
       param("topk", &Params::topk, 1, 1e9, "chunks a query reads, its own included")});
  return r;
}

}  // namespace regard
