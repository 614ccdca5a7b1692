#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  double keep = 0.1;
  int64_t frame = 0;
  int64_t text = 0;
  Tensor rho;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t n = x.problem.nk, first = n - p.text;  // text stands last
  const int64_t frame = p.frame > 0 ? p.frame : std::max<int64_t>(1, first);
  const int64_t side = int64_t(p.keep * double(frame)) / 2;
  const Plan window =
      lists::by_position_singly(ctx, x, [&](int64_t, int64_t i, lists::Ranges* out) {
        const int64_t at = (i % frame + frame) % frame;
        if (i >= first) return out->push_back({0, n});
        lists::in_every(at, side, frame, first, out);
        out->push_back({first, n});
      });
  return Plan::gated(
      {window}, p.rho ? estimate::per_row(x.problem, p.rho) : estimate::kept_share(ctx, x, window));
}

}  // namespace

REGARD_DEFINE_RECIPE(rettention) {
  static const Record r = recipe<Params>(
      {
          .name = "rettention",
          .title = "Re-ttention: narrow windows, scaled by the share they would have had",
          .family = "dynamic",
          .paper = "Chen et al., Re-ttention: Ultra Sparse Visual Generation via Attention "
                   "Statistical Reshape, NeurIPS 2025, arXiv 2505.22918",
          .year = 2025,
          .phase = "any",
          .summary = "A static window makes each of its weights too large, since the softmax no "
                     "longer sees the rest. Multiplying by rho, the share of the denominator that "
                     "the window had at an earlier dense step, restores them: what is left out "
                     "counts as zero values.",
          .when =
              "Image and video diffusion, where rho hardly changes between steps. Give `rho` from "
              "an earlier step; without it rho is measured here, which saves nothing.",
          .cost = "The window alone, once rho is given.",
          .differs =
              "Certain: window of int(n * keep) keys around the query, repeated at the same place "
              "of each frame, text always in; output times rho. Not part, as they need earlier "
              "outputs: the cached residual (taken after the output projection) and the growth of "
              "rho by 0.04 a step. Text stands last (CogVideoX code: first, in the model's own "
              "order). Under causality (our reading) the same, cut.",
          .needs = {"single"},
          .twin = "keep=2",
          .sweep = {"keep", {0.1, 0.2, 0.4}},
      },
      plan,
      {param("keep", &Params::keep, 0, 2, "share of a frame that the window holds"),
       param("frame", &Params::frame, 0, 1e12, "tokens a frame; 0: one frame"),
       param("text", &Params::text, 0, 1e12, "last tokens, which see and are seen"),
       param("rho", &Params::rho, "[1|batch, 1|heads, nq, 1]: share kept at an earlier step")});
  return r;
}

}  // namespace regard
