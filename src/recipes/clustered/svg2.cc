#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  double top_p_kmeans = 0.9;
  double min_kc_ratio = 0.1;
  int64_t num_q_centroids = 300;
  int64_t num_k_centroids = 1000;
  int64_t kmeans_iter = 50;
  int64_t seed = 0;
  Tensor q_centroids, k_centroids;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const auto q = order::kmeans(ctx, x.q, p.num_q_centroids, p.kmeans_iter, p.seed, p.q_centroids);
  const auto k = order::kmeans(ctx, x.k, p.num_k_centroids, p.kmeans_iter, p.seed, p.k_centroids);
  const int64_t least = std::max<int64_t>(1, int64_t(p.min_kc_ratio * double(k.labels.count)));
  const TileBits kept = select(ctx, order::cluster_mass(ctx, x.problem, q, k),
                               {.amount = p.top_p_kmeans, .min_count = least});
  return order::clusters(ctx, x.problem, q.labels, k.labels, kept);
}

}  // namespace

REGARD_DEFINE_RECIPE(svg2) {
  static const Record r = recipe<Params>(
      {
          .name = "svg2",
          .title = "Sparse VideoGen2: semantic clusters of queries and keys",
          .family = "clustered",
          .paper = "Yang et al., Sparse VideoGen2: Accelerate Video Generation with Sparse "
                   "Attention via Semantic-Aware Permutation, NeurIPS 2025, arXiv 2505.18875",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "K-means groups the queries and, apart from them, the keys of each head. Centroids "
              "and cluster sizes estimate how much attention a cluster of queries gives to each "
              "cluster of keys; the best are kept until they hold `top_p_kmeans` of it. Queries of "
              "a cluster are moved side by side and read the keys of the kept clusters, exactly.",
          .when = "Video and image diffusion, where tokens of one kind look at the same things and "
                  "clusters can be kept from one denoising step to the next.",
          .cost = "K-means: n * clusters * dk an iteration, for queries and for keys; more than "
                  "dense attention below about iterations * (q + k clusters) tokens when every "
                  "call starts afresh, as here. Then the kept pairs.",
          .differs =
              "Certain from the authors' code: distances, the size-weighted softmax, the cut (the "
              "cluster that crosses is kept) and min_kc_ratio. They draw first centroids with "
              "replacement, here they are distinct; they warm-start later steps with 2 "
              "iterations (give `q_centroids`, `k_centroids`); their converged centroids may be "
              "one update old, here centroids are "
              "always the means of the labels. First layers and steps that they leave dense are "
              "the caller's. Made without causality; with it, masked pairs are left out "
              "afterwards.",
          .needs = {"single"},
          .twin = "top_p_kmeans=2",
      },
      plan,
      {param("top_p_kmeans", &Params::top_p_kmeans, 0, 2, "share of the estimated mass to cover"),
       param("min_kc_ratio", &Params::min_kc_ratio, 0, 1, "least share of key clusters kept"),
       param("num_q_centroids", &Params::num_q_centroids, 1, 1e6, "clusters of queries a head"),
       param("num_k_centroids", &Params::num_k_centroids, 1, 1e6, "clusters of keys a KV head"),
       param("kmeans_iter", &Params::kmeans_iter, 1, 1000, "most iterations of k-means"),
       param("seed", &Params::seed, 0, 1e12, "of the first centroids"),
       param("q_centroids", &Params::q_centroids, "[1|batch, 1|heads, any, dk] to begin with"),
       param("k_centroids", &Params::k_centroids, "[1|batch, 1|kv_heads, any, dk] to begin with")});
  return r;
}

}  // namespace regard
