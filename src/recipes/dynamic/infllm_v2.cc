#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  int64_t topk = 64;
  int64_t block = 64;
  int64_t init = 1;
  int64_t local = 32;
  int64_t kernel = 32;
  int64_t stride = 16;
  int64_t dense_len = 8192;
  int64_t coarse = 0;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  if (x.problem.nk <= p.dense_len) return Plan::all(x.problem);
  const int b = int(p.block);
  const TileBits forced = keep::where(x.problem, 1, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return c <= own && (c < p.init || own - c <= p.local);
  });
  const Selector best{.cut = Selector::Cut::top_k, .amount = double(p.topk), .forced = &forced};
  const estimate::Compression how{p.kernel, p.stride, p.block, /*maximum=*/true, {}, p.coarse};
  return Plan::tiles(x.problem, 1, b, estimate::best_compressed(ctx, x, how, best));
}

}  // namespace

REGARD_DEFINE_RECIPE(infllm_v2) {
  static const Record r = recipe<Params>(
      {
          .name = "infllm_v2",
          .title = "InfLLM-V2: dense when short, best blocks when long",
          .family = "dynamic",
          .paper = "Zhao et al., InfLLM-V2: Dense-Sparse Switchable Attention for Seamless "
                   "Short-to-Long Adaptation, 2025, arXiv 2509.24663",
          .year = 2025,
          .summary =
              "Beyond dense_len keys, each query of each group of heads reads the first block, "
              "the nearest ones, and the blocks that its attention to overlapping means of keys "
              "points at. No weights of its own, so one model runs either way.",
          .when = "Models trained with it (MiniCPM4.1). Heads of a group share their blocks.",
          .cost = "Means: 1 / stride of a QK product; then topk blocks a query, tiles of one row: "
                  "a CPU "
                  "loses at 16K tokens by default.",
          .differs =
              "As in the authors' code own + `local` blocks are forced, probabilities are summed "
              "over the group, and a block takes the largest of the means that overlap it. "
              "Neighbouring blocks share a mean, so exact ties are common: the lower block wins "
              "here. coarse=4 takes the softmax's sum from means of 128 keys every 64, as their "
              "kernel does; queries that see none of those keep the forced blocks only. thunlp's "
              "copy has local=16.",
          .needs = {"causal", "single"},
          .twin = "topk=1e9",
      },
      plan,
      {param("topk", &Params::topk, 1, 1e9, "blocks a query reads, forced ones included"),
       param("block", &Params::block, 1, 65536, "tokens a block"),
       param("init", &Params::init, 0, 1e9, "first blocks, always read"),
       param("local", &Params::local, 0, 1e9, "blocks before the own one, always read"),
       param("kernel", &Params::kernel, 1, 65536, "keys a mean"),
       param("stride", &Params::stride, 1, 65536, "keys from one mean to the next"),
       param("dense_len", &Params::dense_len, 0, 1e12, "up to so many keys all are read"),
       param("coarse", &Params::coarse, 0, 1024,
             "the softmax's sum from means so many times as wide; 0: its own")});
  return r;
}

}  // namespace regard
