#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  double k1 = 1.0 / 2, k2 = 2.0 / 3, k3 = 3.0 / 4, k4 = 4.0 / 5;
  double w1 = 0.2, w2 = 0.2, w3 = 0.2, w4 = 0.2;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const auto keys = [&](double share) { return int64_t(share * double(x.problem.nk)); };
  return Plan::gated(lists::top_keys(ctx, x, {keys(p.k1), keys(p.k2), keys(p.k3), keys(p.k4)}),
                     estimate::constant_gate(x.problem, {p.w1, p.w2, p.w3, p.w4}));
}

}  // namespace

REGARD_DEFINE_RECIPE(topk_channel) {
  static const Record r = recipe<Params>(
      {
          .name = "topk_channel",
          .title = "DRSformer: the best keys, at four widths, mixed",
          .family = "dynamic",
          .paper =
              "Chen et al., Learning A Sparse Transformer Network for Effective Image Deraining "
              "(DRSformer), CVPR 2023, arXiv 2303.11950",
          .year = 2023,
          .phase = "any",
          .summary =
              "Each query keeps its best keys, exactly, at four shares of them; the four "
              "attentions are mixed by learned weights. In the paper queries and keys are "
              "channels and their vectors run over pixels: give q, k and v transposed, normalised "
              "to length one, with `scale` as the temperature.",
          .when =
              "Image restoration models trained with it (few channels, so the square is small).",
          .cost = "All products are made once to choose; it saves no time on its own.",
          .differs =
              "As in the authors' code: int(share * keys), weights 0.2 each at the start (sum "
              "0.8). Ties go to the lower key. lse is that of the four together. Normalising, "
              "temperature and the convolutions around it are the model's. Under causality a "
              "share is of all keys, taken among those seen.",
          .needs = {"single"},
          .twin = "k1=1,k2=1,k3=1,k4=1,w1=0.25,w2=0.25,w3=0.25,w4=0.25",
      },
      plan,
      {param("k1", &Params::k1, 0, 1, "share of the keys, first branch"),
       param("k2", &Params::k2, 0, 1, "second"), param("k3", &Params::k3, 0, 1, "third"),
       param("k4", &Params::k4, 0, 1, "fourth"),
       param("w1", &Params::w1, -1e6, 1e6, "weight of the first branch"),
       param("w2", &Params::w2, -1e6, 1e6, "second"), param("w3", &Params::w3, -1e6, 1e6, "third"),
       param("w4", &Params::w4, -1e6, 1e6, "fourth")});
  return r;
}

}  // namespace regard
