#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  Tensor mask;
  int64_t block_q = 64;
  int64_t block_k = 64;
};

Plan plan(const Ctx&, const Inputs& x, const Params& p) {
  const int bq = int(p.block_q), bk = int(p.block_k);
  return Plan::tiles(x.problem, bq, bk, keep::given(x.problem, bq, bk, p.mask));
}

}  // namespace

REGARD_DEFINE_RECIPE(block_mask) {
  static const Record r = recipe<Params>(
      {
          .name = "block_mask",
          .title = "Block-sparse attention with a given mask",
          .family = "exact",
          .paper = "Dao et al., FlashAttention, NeurIPS 2022, arXiv 2205.14135, section 3.3",
          .year = 2022,
          .summary =
              "A mask of tiles says which tiles of keys each tile of queries reads. Inside the "
              "kept tiles attention is exact, causality included.",
          .when = "When the sparsity is known beforehand: trained block patterns, documents, masks "
                  "from another tool.",
          .cost = "Kept tiles only. A row of tiles that keeps nothing gives output 0 and lse -inf.",
          .differs = "The first CUDA release fixed tiles of 16 x 256, without causality; here any "
                     "sizes.",
          .needs = {"weights", "single"},
          .prefix = true,
          .twin = "",
      },
      plan,
      {param("mask", &Params::mask, "[1|batch, 1|heads, query tiles, key tiles]; not 0 = read"),
       param("block_q", &Params::block_q, 1, 65536, "queries a tile, from the strip's first"),
       param("block_k", &Params::block_k, 1, 65536, "keys a tile, from key 0")});
  return r;
}

}  // namespace regard
