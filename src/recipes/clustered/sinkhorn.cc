#include "recipes/recipe.h"
#include "stages/order.h"

namespace regard {
namespace {

struct Params {
  int64_t block = 64;
  int64_t n_top = 1;
  int64_t iterations = 7;
  double temperature = 0.75;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const TileBits own = keep::diagonal(x.problem, b, b);
  auto r = estimate::pooled_means(ctx, x, b, b);
  if (x.causal) r = without(std::move(r), own);
  const auto sorted = order::sinkhorn(std::move(r), p.iterations, p.temperature);
  const Selector best{.cut = Selector::Cut::top_k, .amount = double(p.n_top)};
  return Plan::tiles(x.problem, b, b, own | select(ctx, sorted, best));
}

}  // namespace

REGARD_DEFINE_RECIPE(sinkhorn) {
  static const Record r = recipe<Params>(
      {
          .name = "sinkhorn",
          .title = "Sparse Sinkhorn attention: own block and the block sorted to it",
          .family = "clustered",
          .paper = "Tay et al., Sparse Sinkhorn Attention, ICML 2020, arXiv 2002.11296",
          .year = 2020,
          .phase = "prefill",
          .summary =
              "A matrix of block scores is brought near a permutation by normalising rows and "
              "columns in turn (Sinkhorn). Every block of queries reads its own block of keys and "
              "the block or blocks that the permutation sorts to its place.",
          .when = "Models trained with it. Without training a block sees one or two others, which "
                  "is little; block_sparse with the same budget is the fair comparison.",
          .cost = "Scores cost 1 / block^2 of a QK product; then (1 + n_top) blocks a query.",
          .differs =
              "Our reading: the sorting is taken at its limit, each row's best entries, because a "
              "mixture of blocks is no set of pairs; own and sorted block share one softmax. The "
              "paper learns the scores with a small network; here they are those of the port of "
              "lucidrains without parameters: log(relu(mean query . mean key) + 1e-6) over the "
              "temperature, without its Gumbel noise and without weighing the sorted block. "
              "Causal: only earlier blocks are sorted and normalised. Its code reads reordered "
              "keys as values in one class; Long Range Arena's sums all blocks and does not sort.",
          .needs = {"single"},
          .twin = "n_top=1e12",
      },
      plan,
      {param("block", &Params::block, 1, 65536, "tokens a block"),
       param("n_top", &Params::n_top, 0, 1e12, "sorted blocks a block reads"),
       param("iterations", &Params::iterations, 0, 1000, "of the normalisation"),
       param("temperature", &Params::temperature, 1e-3, 1e3, "lower: nearer to a permutation")});
  return r;
}

}  // namespace regard
