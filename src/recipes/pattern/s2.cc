#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 64;
  int64_t local_blocks = 16;
  int64_t vert_stride = 8;
  int64_t offset = 0;
  std::string head = "query";
  int64_t num_dense_heads = 0;
  std::string strides = "absolute";
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const int64_t step = std::max<int64_t>(1, p.vert_stride / x.problem.heads);
  const int64_t heads = p.head == "kv" ? x.problem.kv_heads : p.head == "one" ? 1 : x.problem.heads;
  const bool relative = p.strides == "relative";
  const TileBits kept = keep::where(x.problem, b, b, heads, [&](int64_t h, int64_t own, int64_t c) {
    const int64_t at = relative ? std::abs(own - c) : c + h * step + p.offset;
    return std::abs(own - c) < p.local_blocks || at % p.vert_stride == 0 ||
           h >= heads - p.num_dense_heads;
  });
  return Plan::tiles(x.problem, b, b, kept);
}

}  // namespace

REGARD_DEFINE_RECIPE(s2) {
  static const Record r = recipe<Params>(
      {
          .name = "s2",
          .title = "S2-Attention: another share of the context for each head",
          .family = "pattern",
          .paper = "Lin et al., S2-Attention: Hardware-Aware Context Sharding Among Attention "
                   "Heads, 2024, arXiv 2407.17678",
          .year = 2024,
          .summary =
              "Each head reads its nearest blocks and every vert_stride-th block of the whole "
              "context, begun at another block for each head, so the heads together miss nothing.",
          .when = "Models trained with it (Phi-3-small). Untrained, facts reach one head in "
                  "vert_stride only.",
          .cost = "No scores. local_blocks + blocks / vert_stride blocks a row and head.",
          .differs =
              "offset=0 is the authors' kernel, offset=1 vLLM's. head=kv numbers by KV head, as "
              "both do under grouped queries (with a step from the number of query heads); "
              "head=one is vLLM's default of equal heads. strides=relative counts from the query's "
              "block, in all heads alike: the authors' default without causality.",
          .needs = {"single"},
          .prefix = true,
          .twin = "vert_stride=1",
          .sweep = {"vert_stride", {16, 8, 4, 2}},
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("local_blocks", &Params::local_blocks, 1, 1e12, "nearest blocks, own one included"),
       param("vert_stride", &Params::vert_stride, 1, 1e9, "blocks from one kept block to the next"),
       param("offset", &Params::offset, 0, 1e9, "shifts the kept blocks of all heads"),
       param("head", &Params::head, {"query", "kv", "one"}, "what numbers the heads"),
       param("num_dense_heads", &Params::num_dense_heads, 0, 1e6,
             "last heads that read everything"),
       param("strides", &Params::strides, {"absolute", "relative"}, "where strides begin")});
  return r;
}

}  // namespace regard
