#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  Tensor starts, q_adapter, k_adapter;
  int64_t topk = 16;
  std::string refresh = "boundary";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return lists::adapted_chunks(ctx, x, p.q_adapter, p.k_adapter,
                               {.starts = lists::positions(x.problem, p.starts),
                                .top_k = p.topk,
                                .each_query = p.refresh == "token"});
}

}  // namespace

REGARD_DEFINE_RECIPE(chunkllm) {
  static const Record r = recipe<Params>(
      {
          .name = "chunkllm",
          .title = "ChunkLLM: chunks of meaning, chosen by small adapters",
          .family = "dynamic",
          .paper = "Ouyang et al., ChunkLLM: A Lightweight Pluggable Framework for Accelerating "
                   "LLMs Inference, 2025, arXiv 2510.02361",
          .year = 2025,
          .summary =
              "A classifier cuts the text where a thought ends; adapters project queries and keys "
              "to a small space, where a chunk stands by its last token. Queries read the first "
              "chunk, their own, and the best of the finished ones, chosen anew only at a "
              "boundary.",
          .when = "Models that adapters were trained for; long decoding, as the choice is rarely "
                  "made.",
          .cost = "One small product a chunk and boundary; then the chosen chunks.",
          .differs =
              "Certain: boundaries learned, chunk keys from the last token, choice at boundaries, "
              "first and current chunk kept. Our reading: adapters take all heads side by side "
              "and give one set for the layer, products without scale, and in prefill a chunk's "
              "queries use the choice of the token before it. The classifier runs on hidden "
              "states, so its result comes in as `starts`. No code was found.",
          .needs = {"causal", "single", "weights"},
          .twin = "",
      },
      plan,
      {param("starts", &Params::starts, "positions at which chunks begin"),
       param("q_adapter", &Params::q_adapter, "[1, 1, heads dk, width]"),
       param("k_adapter", &Params::k_adapter, "[1, 1, kv_heads dk, width]"),
       param("topk", &Params::topk, 0, 1e12, "finished chunks a query reads"),
       param("refresh", &Params::refresh, {"boundary", "token"}, "when the choice is made anew")});
  return r;
}

}  // namespace regard
