#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  int64_t block_size = 256;
  int64_t sample_size = 256;
  int64_t lsh_num_projs = 7;
  int64_t min_seq_len = 4096;
  std::string rank = "paper";
  int64_t seed = 0;
  Tensor projections, samples;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return order::hyper(ctx, x,
                      {.block = p.block_size,
                       .samples = p.sample_size,
                       .projections = p.lsh_num_projs,
                       .min_tokens = p.min_seq_len,
                       .seed = p.seed,
                       .gray_of_bits = p.rank == "code",
                       .directions = p.projections,
                       .places = p.samples});
}

}  // namespace

REGARD_DEFINE_RECIPE(hyper) {
  static const Record r = recipe<Params>(
      {
          .name = "hyper",
          .title = "HyperAttention: sorted hash blocks and a sample of the rest",
          .family = "clustered",
          .paper = "Han et al., HyperAttention: Long-context Attention in Near-Linear Time, ICLR "
                   "2024, arXiv 2310.05869",
          .year = 2023,
          .phase = "prefill",
          .summary =
              "Random projections hash queries and keys; sorted by hash they are cut into blocks, "
              "and a block of queries reads the block of keys of the same number exactly. For all "
              "other keys a uniform sample stands in, weighted by how many it stands for. With "
              "causality the sequence is halved until pieces of `min_seq_len` are left, which are "
              "exact; each second half reads its first half in the way above.",
          .when = "Very long prompts whose attention is spread thinly or among like tokens. Single "
                  "far tokens that matter are found only if hash or chance picks them.",
          .cost = "Hashes: n * lsh_num_projs * dk. Then (block_size + sample_size) keys a query "
                  "for every halving, and pieces of min_seq_len exactly.",
          .differs =
              "Certain from the authors' code: hash, blocks, samples drawn with replacement and "
              "shared by all queries, their weight, halving. Sampled keys inside the own block "
              "are left out; their float32 and CUDA paths count them twice. rank=paper sorts by "
              "the place in the Gray code, so that neighbours differ in one bit; their table holds "
              "the Gray code itself (rank=code). They pad ragged lengths with zero keys that get "
              "weight; here the last block is short. Exactness below min_seq_len goes by the keys, "
              "theirs without causality by the queries. A strip sorts its own queries only.",
          .needs = {"single"},
          .twin = "min_seq_len=1e12",
      },
      plan,
      {param("block_size", &Params::block_size, 1, 65536, "keys a sorted block"),
       param("sample_size", &Params::sample_size, 0, 65536, "keys drawn for the rest"),
       param("lsh_num_projs", &Params::lsh_num_projs, 1, 16, "bits of the hash"),
       param("min_seq_len", &Params::min_seq_len, 1, 1e12, "keys up to which all is exact"),
       param("rank", &Params::rank, {"paper", "code"}, "place in the Gray code, or the code of it"),
       param("seed", &Params::seed, 0, 1e12, "of projections and samples"),
       param("projections", &Params::projections,
             "[1, 1, lsh_num_projs, dk], instead of drawn ones"),
       param("samples", &Params::samples,
             "[1|batch, 1|kv_heads, quadrants, sample_size]: places in the sorted order")});
  return r;
}

}  // namespace regard
