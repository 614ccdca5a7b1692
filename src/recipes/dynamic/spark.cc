#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t top_k = 256;
  int64_t channels = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t predictor = p.channels > 0 ? p.channels : (x.problem.dk + 1) / 2;
  return lists::statistical_top(ctx, x, predictor, p.top_k);
}

}  // namespace

REGARD_DEFINE_RECIPE(spark) {
  static const Record r = recipe<Params>(
      {
          .name = "spark",
          .title = "Spark attention: statistical top-k by a part of the channels",
          .family = "dynamic",
          .paper = "You et al., Spark Transformer: Reactivating Sparsity in FFN and Attention, "
                   "NeurIPS 2025, arXiv 2506.06644",
          .year = 2025,
          .summary =
              "The first channels of queries and keys are a cheap predictor. A key is read where "
              "its predicted logit lies above the row's mean by so many standard deviations that "
              "of normal numbers top_k would: no sorting, one pass over the row.",
          .when =
              "Models trained with it, which put what decides into the first channels. On other "
              "models half the channels guess the rest, and top_k has to be generous.",
          .cost = "A product over `channels` of dk channels for every pair, which is most of the "
                  "time; then about top_k single keys a query. Faster than exact from 16K on.",
          .differs =
              "No code of the authors is public. Certain: the split of channels, the threshold by "
              "mean, deviation and normal quantile, about top_k keys. Our reading: statistics over "
              "the keys a query sees, with the population's deviation (as Gemma 3n's layers "
              "do for activations); all keys while there are at most top_k. The output here is "
              "exact attention, by all channels, over the keys found: what a model not trained "
              "with it needs. In the paper, as far as our sources tell, softmax runs "
              "over the predicted logits and each weight is multiplied by softplus of the other "
              "channels' product; that form is not part.",
          .needs = {"single"},
          .prefix = true,
          .twin = "top_k=1e12",
          .sweep = {"top_k", {128, 256, 512, 1024}},
      },
      plan,
      {param("top_k", &Params::top_k, 1, 1e12, "keys a query, about"),
       param("channels", &Params::channels, 0, 65536,
             "first channels that predict; 0: half of them, as in the paper")});
  return r;
}

}  // namespace regard
