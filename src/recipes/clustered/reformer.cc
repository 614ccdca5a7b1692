#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  int64_t n_hashes = 8;
  int64_t chunk = 64;
  int64_t n_buckets = 0;
  std::string self = "alone";
  int64_t seed = 0;
  Tensor rotations;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  return order::lsh_attention(ctx, x,
                              {.rounds = p.n_hashes,
                               .chunk = p.chunk,
                               .buckets = p.n_buckets,
                               .seed = p.seed,
                               .self_always = p.self == "always",
                               .rotations = p.rotations});
}

}  // namespace

REGARD_DEFINE_RECIPE(reformer) {
  static const Record r = recipe<Params>(
      {
          .name = "reformer",
          .title = "Reformer: attention inside hash buckets",
          .family = "clustered",
          .paper = "Kitaev, Kaiser, Levskaya, Reformer: The Efficient Transformer, ICLR 2020, "
                   "arXiv 2001.04451",
          .year = 2020,
          .summary =
              "Random rotations hash queries and keys to buckets. Keys are sorted by bucket and "
              "position and cut into chunks; a query reads the keys of its bucket in its own chunk "
              "and the one before. Several rounds of hashing are united.",
          .when =
              "Models trained with it, where keys are the normalised queries. Elsewhere queries "
              "and keys seldom share a bucket and most of the attention is lost.",
          .cost = "Hashes: n * n_buckets / 2 * dk a round, for queries and keys. Then about "
                  "n_hashes * chunk / 2 keys a query, gathered one by one. By default faster than "
                  "exact from 16K tokens on.",
          .differs =
              "Certain: hash, sort, chunk with one look-back, masking of other buckets, a token "
              "reads itself only when it reads nothing else. Pairs found in several rounds count "
              "once, as the paper's correction has it. Our reading: queries are hashed by "
              "themselves and stand where a key of their bucket and position would, which for "
              "shared queries and keys is the paper's rule and extends it to strips; length "
              "normalisation of keys is the model's. n_buckets=0 is the paper's 2 n / chunk; the "
              "port of lucidrains takes n / chunk, wraps the first chunk around and by default "
              "attends across buckets and counts repeated pairs again; Long Range Arena masks "
              "nothing and multiplies by sqrt(d).",
          .needs = {"single"},
          .twin = "n_hashes=1,n_buckets=1,chunk=1e12,self=always",
      },
      plan,
      {param("n_hashes", &Params::n_hashes, 1, 64, "rounds of hashing"),
       param("chunk", &Params::chunk, 1, 1e12, "sorted keys a chunk"),
       param("n_buckets", &Params::n_buckets, 0, 65536,
             "buckets, made even; 1: no hashing; 0: 2 * keys / chunk"),
       param("self", &Params::self, {"alone", "always"}, "when a token reads itself"),
       param("seed", &Params::seed, 0, 1e12, "of the rotations"),
       param("rotations", &Params::rotations,
             "[1, n_hashes, n_buckets / 2, dk], instead of drawn ones")});
  return r;
}

}  // namespace regard
