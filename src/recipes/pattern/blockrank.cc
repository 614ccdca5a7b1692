#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t instruction = 64;
  int64_t document = 256;
  int64_t query = 64;
  Tensor starts;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t n = x.problem.nk, begin = std::min(p.instruction, n);
  const auto starts = p.starts ? lists::positions(x.problem, p.starts)
                               : lists::cuts(begin, p.document, std::max(begin, n - p.query));
  return lists::by_position(ctx, x, 1, [&](int64_t, int64_t i, lists::Ranges* out) {
    const bool is_query = i >= starts.back();
    out->push_back({0, is_query ? n : starts.front()});
    out->push_back(lists::piece(starts, n, i));
  });
}

}  // namespace

REGARD_DEFINE_RECIPE(blockrank) {
  static const Record r = recipe<Params>(
      {
          .name = "blockrank",
          .title = "BlockRank: documents that do not see each other",
          .family = "pattern",
          .paper = "Gupta et al., Scalable In-context Ranking with Generative Models (BlockRank), "
                   "2025, arXiv 2510.05396",
          .year = 2025,
          .summary =
              "A prompt is an instruction, documents, and a query. Each document reads the "
              "instruction and itself, the query reads everything. The query's attention to the "
              "documents then ranks them.",
          .when =
              "Ranking and retrieval over many independent documents, with a model tuned for it.",
          .cost = "No scores. Linear in the number of documents.",
          .differs =
              "Certain: who sees whom. The auxiliary loss, the read-out of scores and the "
              "positions (each document starts at the instruction's length) belong to the model "
              "and are not part. The authors pad every block on the left to one length and mask "
              "by 0.7 of the largest number; here pieces have any length and padding does not "
              "exist.",
          .needs = {"causal", "single"},
          .twin = "document=1e12",
          .sweep = {"document", {256, 512, 1024, 2048}},
      },
      plan,
      {param("instruction", &Params::instruction, 0, 1e12, "first tokens, seen by all"),
       param("document", &Params::document, 1, 1e12, "tokens a document"),
       param("query", &Params::query, 0, 1e12, "last tokens, which see all"),
       param("starts", &Params::starts,
             "instead: the first positions of documents and, last, of the query")});
  return r;
}

}  // namespace regard
