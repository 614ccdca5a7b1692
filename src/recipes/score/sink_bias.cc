#include "recipes/recipe.h"
#include "stages/slopes.h"

namespace regard {
namespace {

struct Params {
  double logit = 0;
  Tensor logits;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  Norm norm{.kind = NormKind::softmax_sink};
  norm.sink = p.logits ? per_head("sink logits", x.problem.heads, p.logits)
                       : std::vector<float>(size_t(x.problem.heads), float(p.logit));
  return Plan::all(x.problem).norm(norm);
}

}  // namespace

REGARD_DEFINE_RECIPE(sink_bias) {
  static const Record r = recipe<Params>(
      {
          .name = "sink_bias",
          .title = "Attention sink as a learned logit",
          .family = "score",
          .paper =
              "OpenAI, gpt-oss model card, 2025, arXiv 2508.10925; Gu et al., When Attention Sink "
              "Emerges, ICLR 2025, arXiv 2410.10781",
          .year = 2025,
          .summary =
              "One more logit per query head joins the softmax's denominator and has no value, "
              "so a head may attend to nothing: weights sum to sigmoid(lse - logit).",
          .when = "Models trained with it (gpt-oss). logit=0 is 'softmax plus one'.",
          .cost = "Dense; nothing on top.",
          .differs =
              "The logit is neither scaled nor capped, as in the authors' code. The key-bias, "
              "value-bias and no-normaliser variants of the second paper are not part of this "
              "method.",
          .prefix = true,
          .twin = "logit=-inf",
      },
      plan,
      {param("logit", &Params::logit, -std::numeric_limits<double>::infinity(), 1e6,
             "the sink's logit, in every head; -inf = off"),
       param("logits", &Params::logits, "one logit a query head, instead of `logit`")});
  return r;
}

}  // namespace regard
