#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  double energy = 0.95, least = 0.05, most = 0.17;
  int64_t block = 128, samples = 32, gap = 30, text = 0, seed = 0;
  std::string importance = "paper", cut = "paper";
  Tensor q_offsets, k_offsets;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const auto scores = estimate::sampled(
      ctx, x, b, b,
      {p.samples, p.samples, p.seed, p.importance == "paper", p.q_offsets, p.k_offsets});
  const auto share = [&](double s) { return std::max<int64_t>(1, int64_t(s * scores.cols)); };
  const TileBits kept = select(ctx, scores,
                               {.amount = p.energy,
                                .keep_crossing = p.cut == "paper",
                                .min_count = share(p.least),
                                .max_count = share(p.most)});
  const int64_t video = x.problem.nk - p.text;
  const TileBits text = keep::where(x.problem, b, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return std::min((std::max(own, c) + 1) * b, x.problem.nk) > video;
  });
  const Plan fine = Plan::tiles(x.problem, b, b, kept | text);
  if (p.gap == 0) return fine;
  return Plan::same({fine, Plan::all(x.problem).pooled(int(p.gap))});
}

}  // namespace

REGARD_DEFINE_RECIPE(asa) {
  static const Record r = recipe<Params>(
      {
          .name = "asa",
          .title = "Video-BLADE: the best blocks, and everything as means",
          .family = "dynamic",
          .paper = "Gu et al., (Video-)BLADE: Block-Sparse Attention Meets Step Distillation for "
                   "Efficient Video Generation, ICLR 2026, arXiv 2508.10774",
          .year = 2025,
          .phase = "any",
          .summary =
              "A sample of the pairs says how much each block matters; a query block reads those "
              "that cover `energy`, between `least` and `most` of all blocks. Beside them it "
              "reads means of every `gap` tokens of the whole sequence, weighted by their number.",
          .when = "Video diffusion models distilled with it.",
          .cost = "Scores: (samples / block)^2 of a QK product; then the kept blocks and n / gap "
                  "means.",
          .differs =
              "cut=code drops the block that crosses `energy`; importance=code skips the "
              "softmax's normaliser, so that every block holding a row's maximum is equal (ties "
              "go to the lower block). By design kept keys count twice, once in their means. Text "
              "stands last and is read, and reads, beyond the count (their CogVideoX version). Not "
              "part: curve order, training. Our reading: a mean is seen once all its tokens are.",
          .needs = {"single"},
          .twin = "gap=0,energy=2,most=1",
          .sweep = {"most", {0.1, 0.17, 0.3, 0.5}},
      },
      plan,
      {param("energy", &Params::energy, 0, 2, "share of the importance to cover"),
       param("least", &Params::least, 0, 1, "share of the blocks kept at least"),
       param("most", &Params::most, 0, 1, "share of the blocks kept at most"),
       param("block", &Params::block, 8, 1024, "tokens a block"),
       param("samples", &Params::samples, 1, 1024, "tokens sampled in each block"),
       param("gap", &Params::gap, 0, 65536, "tokens a mean; 0: no means"),
       param("importance", &Params::importance, {"paper", "code"}, "normalised or not"),
       param("cut", &Params::cut, {"paper", "code"}, "the block that crosses `energy`"),
       param("text", &Params::text, 0, 1e12, "last tokens, which see and are seen"),
       param("seed", &Params::seed, 0, 1e15, "which sample"),
       param("q_offsets", &Params::q_offsets, "[1|batch, 1|heads, 1, any]: the sample in a block"),
       param("k_offsets", &Params::k_offsets, "the same for keys")});
  return r;
}

}  // namespace regard
