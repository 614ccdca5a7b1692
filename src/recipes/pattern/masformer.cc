#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 1024;
  std::string span = "block";
  bool full = false;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  if (p.full) return Plan::all(x.problem);
  if (p.span == "window") return Plan::band(x.problem, p.block, x.causal ? 0 : p.block);
  const auto starts = lists::cuts(0, p.block, x.problem.nk);
  return lists::by_position(ctx, x, 1, [&](int64_t, int64_t i, lists::Ranges* out) {
    out->push_back(lists::piece(starts, x.problem.nk, i));
  });
}

}  // namespace

REGARD_DEFINE_RECIPE(masformer) {
  static const Record r = recipe<Params>(
      {
          .name = "masformer",
          .title = "MASFormer: full attention in a few layers, short spans in the rest",
          .family = "pattern",
          .paper = "Zhang et al., Efficient Long-Range Transformers (MASFormer), EMNLP 2023, arXiv "
                   "2310.12442",
          .year = 2023,
          .summary =
              "Long range is left to a few layers with full attention; all others read their own "
              "block only. This is one layer: `full` says which kind it is.",
          .when = "Decoders tuned with it; the paper has full attention in about 4 of 24 layers.",
          .cost = "No scores. At most `block` keys a query where the layer is not full.",
          .differs =
              "Certain: full attention in some layers, and block-sparse or sliding-window spans "
              "in the rest (the paper's figure 1 shows both). Our reading: a block reads itself "
              "alone, 1024 tokens; which layers are full is the caller's to say. No code was "
              "found.",
          .needs = {"single"},
          .prefix = true,
          .twin = "full=true",
          .sweep = {"block", {256, 512, 1024, 2048}},
      },
      plan,
      {param("block", &Params::block, 1, 1e12, "tokens of a block, or of the window on one side"),
       param("span", &Params::span, {"block", "window"}, "what a layer that is not full reads"),
       param("full", &Params::full, "this layer has full attention")});
  return r;
}

}  // namespace regard
