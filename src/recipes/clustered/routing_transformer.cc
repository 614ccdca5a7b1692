#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  int64_t clusters = 0;
  int64_t window = 0;
  Tensor centroids;
  int64_t iterations = 10;
  int64_t seed = 0;
  std::string combine = "union";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return order::routing(ctx, x,
                        {.clusters = p.clusters,
                         .window = p.window,
                         .iterations = p.iterations,
                         .seed = p.seed,
                         .centroids = p.centroids,
                         .average = p.combine == "average"});
}

}  // namespace

REGARD_DEFINE_RECIPE(routing_transformer) {
  static const Record r = recipe<Params>(
      {
          .name = "routing_transformer",
          .title = "Routing Transformer: balanced k-means clusters",
          .family = "clustered",
          .paper =
              "Roy et al., Efficient Content-Based Sparse Attention with Routing Transformers, "
              "TACL 2021, arXiv 2003.05997",
          .year = 2020,
          .phase = "prefill",
          .summary =
              "Every centroid takes the `window` queries and the `window` keys most similar to it, "
              "after a layer norm without parameters. A query reads the keys of its clusters; one "
              "that no centroid took reads nothing and gets 0.",
          .when = "Models trained with it, with their centroids, usually on half of the heads with "
                  "local attention on the others. On other models k-means of the keys stands in.",
          .cost = "Similarities: n * clusters * dk; k-means, where no centroids are given, "
                  "`iterations` times as much. Then about `window` keys a query.",
          .differs =
              "Certain from paper and code: layer norm, balanced top-w lists, clusters ~ sqrt(n), "
              "window n / clusters. combine=average is the code: a softmax in each of a token's "
              "clusters, their sum over count + 0.01. It masks by rank in the list, which leaks "
              "the future unless queries and keys are shared; here positions mask, and union is "
              "one softmax over all keys of the clusters (our reading of the paper's equation). "
              "Logits are the model's own, not those of normed queries and keys. k-means in place "
              "of learned centroids is ours; the moving average of training is not here.",
          .needs = {"single"},
          .twin = "clusters=1",
      },
      plan,
      {param("clusters", &Params::clusters, 0, 1e6, "centroids of k-means; 0: sqrt(keys)"),
       param("window", &Params::window, 0, 1e12, "tokens a cluster; 0: tokens / clusters"),
       param("centroids", &Params::centroids, "learned centroids [1|batch, 1|heads, clusters, dk]"),
       param("iterations", &Params::iterations, 1, 1000, "of k-means, without learned centroids"),
       param("seed", &Params::seed, 0, 1e12, "of the first centroids of k-means"),
       param("combine", &Params::combine, {"union", "average"}, "of a query's clusters")});
  return r;
}

}  // namespace regard
