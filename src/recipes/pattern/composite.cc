#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t first = 0;
  int64_t visual = 576;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return lists::by_position(ctx, x, 1, [&](int64_t, int64_t i, lists::Ranges* out) {
    const bool is_visual = i >= p.first && i < p.first + p.visual;
    if (!is_visual) out->push_back({0, x.problem.nk});
  });
}

}  // namespace

REGARD_DEFINE_RECIPE(composite) {
  static const Record r = recipe<Params>(
      {
          .name = "composite",
          .title = "EE-MLLM: visual tokens are only read",
          .family = "pattern",
          .paper = "Ma et al., EE-MLLM: A Data-Efficient and Compute-Efficient Multimodal Large "
                   "Language Model, 2024, arXiv 2408.11795",
          .year = 2024,
          .phase = "prefill",
          .summary =
              "Text tokens read the visual tokens and earlier text in one softmax. Visual tokens "
              "read nothing: attention leaves them as they are, and the layer's other weights "
              "carry them on.",
          .when = "Multimodal models tuned for it, with many visual tokens before the text.",
          .cost = "text * (text + visual) pairs instead of the square of the sum.",
          .differs =
              "Certain, from the abstract: no self-attention among visual tokens, weights of each "
              "layer reused. Our reading: a visual row's output is 0 (so the residual passes "
              "through), and causality still cuts what text before the picture reads. 576 is the "
              "usual count of a 24 x 24 picture. No code of the authors was found.",
          .needs = {"single"},
          .prefix = true,
          .twin = "visual=0",
      },
      plan,
      {param("first", &Params::first, 0, 1e12, "position of the first visual token"),
       param("visual", &Params::visual, 0, 1e12, "visual tokens")});
  return r;
}

}  // namespace regard
