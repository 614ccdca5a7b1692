#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double cap = 50;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  return Plan::all(x.problem).score({.softcap = float(p.cap)});
}

}  // namespace

REGARD_DEFINE_RECIPE(softcap) {
  static const Record r = recipe<Params>(
      {
          .name = "softcap",
          .title = "Logit soft-capping",
          .family = "score",
          .paper = "Gemma Team, Gemma 2, 2024, arXiv 2408.00118, section 2",
          .year = 2024,
          .summary = "Scaled logits pass through cap * tanh(x / cap), so none leaves (-cap, cap). "
                     "Biases and masks come after the cap.",
          .when = "Models trained with it (Gemma 2: 50). On others it flattens peaks.",
          .cost = "Dense, and a tanh a pair.",
          .differs = "As in the authors' code cap = 0 is off. transformers masks with the smallest "
                     "number, so its fully masked rows become uniform; here they are 0.",
          .prefix = true,
          .twin = "cap=0",
      },
      plan, {param("cap", &Params::cap, 0, 1e30, "bound of the logits; 0 = off")});
  return r;
}

}  // namespace regard
