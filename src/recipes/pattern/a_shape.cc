#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t n_init = 128;
  int64_t n_local = 3968;
  int64_t n_last = 0;
};

// Key j is kept for query i if j <= i and (j < n_init or i - j < n_local).
Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  if (p.n_last == 0) return Plan::band(x.problem, p.n_local - 1, 0, p.n_init);
  const int64_t n = x.problem.nk;
  return lists::by_position(ctx, x, 1, [&](int64_t, int64_t i, lists::Ranges* out) {
    out->push_back({0, i >= n - p.n_last ? n : p.n_init});
    out->push_back({i - p.n_local + 1, i + 1});
  });
}

}  // namespace

REGARD_DEFINE_RECIPE(a_shape) {
  static const Record r = recipe<Params>(
      {
          .name = "a_shape",
          .title = "A-shape: first tokens and a sliding window",
          .family = "pattern",
          .paper = "Jiang et al., MInference 1.0, NeurIPS 2024, arXiv 2407.02490; Xiao et al., "
                   "StreamingLLM, ICLR 2024, arXiv 2309.17453",
          .year = 2024,
          .summary =
              "Every query reads the first `n_init` tokens and the `n_local` tokens that end with "
              "itself. The first tokens take the attention that has nowhere to go; without them a "
              "plain window loses its fluency.",
          .when = "Streams without end, and heads that only look nearby. Whatever lies between the "
                  "first tokens and the window is never read, so facts in the middle are lost.",
          .cost = "No planning. At most (n_init + n_local) keys a query: linear in the length.",
          .differs =
              "The authors' kernel pads head sizes that are no power of two with zeros and then "
              "scales by the padded size; here the scale stays 1/sqrt(d). n_last=100 is its "
              "tri-shape variant, whose last queries read everything.",
          .needs = {"causal"},
          .prefix = true,
          .twin = "n_local=1e9",
          .sweep = {"n_local", {256, 512, 1024, 2048}},
      },
      plan,
      {param("n_init", &Params::n_init, 0, 1e12, "first tokens that every query reads"),
       param("n_local", &Params::n_local, 1, 1e12,
             "tokens of the window, the query's own included"),
       param("n_last", &Params::n_last, 0, 1e12, "last tokens, whose queries read everything")});
  return r;
}

}  // namespace regard
