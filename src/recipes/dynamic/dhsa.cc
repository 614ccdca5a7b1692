#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  Tensor starts;
  int64_t chunk = 64;
  int64_t top_k = 1024;
  int64_t local = 0;
  int64_t global = 0;
  std::string queries = "chunks";
  std::string heads = "each";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return lists::best_chunks(ctx, x,
                            {.starts = p.starts ? lists::positions(x.problem, p.starts)
                                                : lists::cuts(0, p.chunk, x.problem.nk),
                             .query_block = p.queries == "blocks" ? p.chunk : 0,
                             .top_k = p.top_k,
                             .local = p.local,
                             .global = p.global,
                             .shared = p.heads == "shared"});
}

}  // namespace

REGARD_DEFINE_RECIPE(dhsa) {
  static const Record r = recipe<Params>(
      {
          .name = "dhsa",
          .title = "DHSA: chunks of text of any length, scored as wholes",
          .family = "dynamic",
          .paper =
              "Xiong et al., Long-Context Modeling with Dynamic Hierarchical Sparse Attention, "
              "2025, arXiv 2510.24606",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "Text is cut where its attention changes. A chunk is the sum of its tokens over the "
              "root of their number, so long chunks are neither favoured nor drowned. Each query "
              "takes the keys of the chunks that suit its own chunk best, up to a budget.",
          .when = "Long prompts on small devices; with boundaries from the paper's predictor in "
                  "`starts`, otherwise equal chunks.",
          .cost = "One vector a chunk and products of chunks; then top_k keys a query.",
          .differs =
              "queries=blocks (fixed blocks of `chunk`) and heads=shared (one set for all heads, "
              "from averaged queries and keys) are the authors' code. There the budget is that of "
              "the block's last query, local and global keys replace others after the cut and may "
              "count many times; here each query spends its own budget, forced keys first, none "
              "twice. Inside the last chunk taken, keys are taken from its start. The boundary "
              "predictor is not part.",
          .needs = {"single"},
          .twin = "top_k=1e12",
      },
      plan,
      {param("starts", &Params::starts, "positions at which chunks begin"),
       param("chunk", &Params::chunk, 1, 1e9, "tokens a chunk where `starts` is not given"),
       param("top_k", &Params::top_k, 1, 1e12, "keys a query reads"),
       param("local", &Params::local, 0, 1e12, "of them, the last ones it sees"),
       param("global", &Params::global, 0, 1e12, "of them, the first ones"),
       param("queries", &Params::queries, {"chunks", "blocks"}, "how queries are cut"),
       param("heads", &Params::heads, {"each", "shared"}, "whose scores count")});
  return r;
}

}  // namespace regard
