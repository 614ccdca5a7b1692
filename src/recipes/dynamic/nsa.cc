#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  Tensor gate;
  int64_t width = 32;
  int64_t stride = 16;
  int64_t block = 64;
  int64_t topk = 16;
  int64_t init = 1;
  int64_t local = 1;
  int64_t window = 512;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores =
      estimate::compressed(ctx, x, {.width = p.width, .stride = p.stride, .block = p.block});
  const TileBits forced = keep::where(x.problem, 1, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return c <= own && (c < p.init || own - c <= p.local);
  });
  const Selector best{.cut = Selector::Cut::top_k, .amount = double(p.topk), .forced = &forced};
  return Plan::gated(
      {Plan::all(x.problem).pooled(int(p.width)),
       Plan::tiles(x.problem, 1, b, select(ctx, scores, best)), Plan::band(x.problem, p.window, 0)},
      estimate::per_row(x.problem, p.gate));
}

}  // namespace

REGARD_DEFINE_RECIPE(nsa) {
  static const Record r = recipe<Params>(
      {
          .name = "nsa",
          .title = "NSA: compressed, selected and nearby keys, gated",
          .family = "dynamic",
          .paper = "Yuan et al., Native Sparse Attention, ACL 2025, arXiv 2502.11089",
          .year = 2025,
          .summary = "Three attentions are weighed by learned gates: to means of keys, to the "
                     "blocks which attention to overlapping means points at (one choice for a "
                     "group of heads), and to a window.",
          .when = "Models trained with it; `gate` comes from their gate projection (after the "
                  "sigmoid).",
          .cost =
              "Means: 1 / stride of a QK product; then topk blocks, a window and n / width means "
              "a query.",
          .differs =
              "Certain: the three branches, weights 1, 2, 2, 2, 1 of overlapping means (authors "
              "gave no code; the field's reference), sums over the group, forced first and two "
              "local blocks, window of 512 keys before the query and itself. Our reading: "
              "compression is a plain mean, without learned weights or position code; the "
              "compressed branch reads means that do not overlap, since a plan's pooled keys do "
              "not. FSA's copy scores with one head of the group and shares gates over heads: "
              "such a gate is given with one head.",
          .needs = {"causal", "single", "weights"},
          .prefix = true,
          .twin = "",
      },
      plan,
      {param("gate", &Params::gate,
             "[1|batch, 1|heads, nq, 3]: weights of the compressed, selected and window branches"),
       param("width", &Params::width, 1, 65536, "keys a mean"),
       param("stride", &Params::stride, 1, 65536, "keys from one scored mean to the next"),
       param("block", &Params::block, 1, 65536, "keys a selected block"),
       param("topk", &Params::topk, 1, 1e9, "blocks a query reads, forced ones included"),
       param("init", &Params::init, 0, 1e9, "first blocks, always read"),
       param("local", &Params::local, 0, 1e9, "blocks before the own one, always read"),
       param("window", &Params::window, 0, 1e12, "keys of the window before the query's own")});
  return r;
}

}  // namespace regard
