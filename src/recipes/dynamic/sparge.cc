#include "recipes/recipe.h"

namespace regard {
namespace {

struct Params {
  std::string cut = "cdf";
  double cdf = 0.98, topk = 0.5, similarity = 0.6;
  int64_t block_q = 128;
  int64_t block_k = 64;
  std::string tail = "paper";
  double lambda = 0;
  bool attention_sink = false;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int bq = int(p.block_q), bk = int(p.block_k);
  const bool code = p.tail == "code", by_mass = p.cut == "cdf";
  const TileBits rows = keep::rows_not_above(
      x.problem, bq, bk, estimate::self_similarity(ctx, x.q, bq, false, code), p.similarity);
  const TileBits columns = keep::columns_not_above(
      x.problem, bq, bk, estimate::self_similarity(ctx, x.k, bk, true, code), p.similarity);
  const auto map = row_softmax(without(estimate::pooled_means(ctx, x, bq, bk), columns));
  const double share = p.topk * double(columns.cols);
  const TileBits best = select(ctx, map,
                               {.cut = by_mass ? Selector::Cut::coverage : Selector::Cut::top_k,
                                .amount = by_mass ? p.cdf : share,
                                .keep_crossing = false,
                                .min_count = 1});
  const TileBits first = keep::sink(x.problem, bq, bk, p.attention_sink ? 1 : 0);
  return Plan::tiles(x.problem, bq, bk, best | columns | rows | first).value_skip(float(p.lambda));
}

}  // namespace

REGARD_DEFINE_RECIPE(sparge) {
  static const Record r = recipe<Params>(
      {
          .name = "sparge",
          .title = "SpargeAttn: pooled scores where blocks are self-similar",
          .family = "dynamic",
          .paper = "Zhang et al., SpargeAttn, ICML 2025, arXiv 2502.18137",
          .year = 2025,
          .phase = "prefill",
          .summary =
              "A block whose tokens point the same way is well described by its mean; such blocks "
              "compete by the softmax of their means' products. All others are read by every "
              "query (keys), or read everything (queries), so a block that hides a single odd "
              "token is never lost.",
          .when = "Any model, language, image or video; the thresholds are meant to be tuned per "
                  "head. On text many blocks are not self-similar, so little is skipped.",
          .cost = "Means, cosines and scores: about 1 / block of a QK product.",
          .differs =
              "As in the code the tile that crosses cdf is dropped, at least one is kept, and "
              "topk counts tiles of the whole row even where causality hides some. tail=code "
              "takes a partial last block as not self-similar (there it divides by zero). lambda "
              "is the second stage (pvthreshd there, 50 by default, which f32 cannot see; off "
              "here): blocks of 64 keys in ascending order, each row by itself, where there all "
              "rows of a warp must agree, so a little more is left out. Products are f32 unless "
              "asked otherwise; there int8.",
          .needs = {"single"},
          .twin = "cdf=2",
          .sweep = {"cdf", {0.8, 0.9, 0.95, 0.98}},
      },
      plan,
      {param("cut", &Params::cut, {"cdf", "topk"}, "cover a share of the mass, or of the tiles"),
       param("cdf", &Params::cdf, 0, 2, "share of the pooled attention to cover"),
       param("topk", &Params::topk, 0, 1, "share of the key tiles to keep"),
       param("similarity", &Params::similarity, -1, 1, "mean cosine above which a block competes"),
       param("block_q", &Params::block_q, 8, 1024, "queries a tile"),
       param("block_k", &Params::block_k, 8, 1024, "keys a tile"),
       param("tail", &Params::tail, {"paper", "code"}, "a partial last block"),
       param("lambda", &Params::lambda, 0, 1e6,
             "skip values of blocks so far (in logits) below the greatest so far; 0: none"),
       param("attention_sink", &Params::attention_sink, "the first key tile is always read")});
  return r;
}

}  // namespace regard
