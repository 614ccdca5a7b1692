#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t window = 256;
  int64_t right = -1;
  int64_t dilation = 1;
  int64_t global = 1;
  Tensor tokens;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t right = x.causal ? 0 : p.right < 0 ? p.window : p.right;
  const Window band{p.window, right, p.global};
  const std::vector<int64_t> tokens = lists::positions(x.problem, p.tokens);
  if (p.dilation > 1) return lists::dilated(ctx, x, band, p.dilation, tokens);
  const IndexList global = lists::global_tokens(x.problem, band, tokens);
  return Plan::same(
      {Plan::band(x.problem, band.left, band.right, band.sink), Plan::columns(x.problem, global)});
}

}  // namespace

REGARD_DEFINE_RECIPE(longformer) {
  static const Record r = recipe<Params>(
      {
          .name = "longformer",
          .title = "Longformer: sliding window and global tokens",
          .family = "pattern",
          .paper = "Beltagy, Peters, Cohan, Longformer, 2020, arXiv 2004.05150",
          .year = 2020,
          .summary =
              "Every query reads `window` tokens to its left, itself, and (where attention is not "
              "causal) `window` tokens to its right. Global tokens are read by every query and "
              "read every key; they carry what has to travel far.",
          .when =
              "Encoders trained with it, with global tokens on the class token or the question. "
              "On models that were not trained so, it is a plain window with a few anchors.",
          .cost =
              "No scores. 2 * window + 1 + globals keys a query, and a dense row for each global "
              "token: linear in the length.",
          .differs =
              "The authors' models project global rows with weights of their own; here one set of "
              "q, k, v serves all. Long Range Arena counts the whole window w: "
              "window=w-w/2-1,right=w/2 here. Dilated windows (section 3.1) are in the authors' "
              "TVM kernel only. Their mask adds -1e4; here masked pairs do not exist.",
          .prefix = true,
          .twin = "window=1e9",
          .sweep = {"window", {256, 512, 1024, 2048}},
      },
      plan,
      {param("window", &Params::window, 0, 1e12, "tokens on ONE side of the query"),
       param("right", &Params::right, -1, 1e12,
             "tokens on its right, without causality; -1: window"),
       param("dilation", &Params::dilation, 1, 1e9,
             "tokens from one key of the window to the next"),
       param("global", &Params::global, 0, 1e12, "the first tokens, as many as this, are global"),
       param("tokens", &Params::tokens, "positions of further global tokens")});
  return r;
}

}  // namespace regard
