#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  std::string pattern = "strided";
  int64_t stride = 128;
  int64_t c = 32;
  std::string heads = "merged";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int64_t l = p.stride, n = x.problem.nk, c = std::min(p.c, l);
  const bool shared = p.heads == "merged" || p.heads == "far", strided = p.pattern == "strided";
  const int64_t verts = p.heads == "own" ? std::max<int64_t>(1, l / std::max<int64_t>(1, c)) : 1;
  // Parts 0 and 1 of the paper's factorised attention for query i.
  const auto local = [=](int64_t i, lists::Ranges* out) {
    if (strided) return out->push_back({i - l, i + l + 1});
    const int64_t begin = (i - (i % l + l) % l);
    out->push_back({begin, begin + l});
  };
  const auto far = [=](int64_t h, int64_t i, lists::Ranges* out) {
    if (strided) return lists::every((i % l + l) % l, 1, l, n, out);
    lists::every(l - (h % verts + 1) * c, c, l, n, out);
  };
  return lists::by_position(ctx, x, shared ? 1 : x.problem.heads,
                            [=](int64_t h, int64_t i, lists::Ranges* out) {
                              const bool both = p.heads == "merged" || p.heads == "own";
                              if (both || (p.heads == "alternate" && h % 2 == 0)) local(i, out);
                              if (both || p.heads == "far" || h % 2 == 1) far(h, i, out);
                            });
}

}  // namespace

REGARD_DEFINE_RECIPE(sparse_transformer) {
  static const Record r = recipe<Params>(
      {
          .name = "sparse_transformer",
          .title = "Sparse Transformer: strided and fixed patterns",
          .family = "pattern",
          .paper = "Child et al., Generating Long Sequences with Sparse Transformers, 2019, arXiv "
                   "1904.10509",
          .year = 2019,
          .summary =
              "Two sets whose composition reaches every token. strided: the last `stride` tokens, "
              "and every stride-th token back from the query. fixed: the query's own stretch of "
              "`stride` tokens, and the last `c` tokens of every stretch, which summarise it.",
          .when = "strided for data with a period (images, music), fixed for text; for models "
                  "trained with it.",
          .cost =
              "No scores. About stride + n / stride keys a query (fixed: stride + c n / stride). "
              "Single keys are gathered one by one, so it gains only at long lengths.",
          .differs =
              "merged is the paper's single head over the union, alternate gives even heads the "
              "first set and odd heads the second. Without causality the window is two-sided (our "
              "reading). heads=far is the authors' strided kernel (the second set alone), "
              "heads=own "
              "their fixed: head h reads its own c of each stretch, counted back from its end, "
              "there in whole blocks. Long Range Arena adds column 0 of each stretch and masks "
              "causally even in encoders.",
          .needs = {"single"},
          .prefix = true,
          .twin = "stride=1",
          .sweep = {"stride", {128, 64, 32}},
      },
      plan,
      {param("pattern", &Params::pattern, {"strided", "fixed"}, "which pair of sets"),
       param("stride", &Params::stride, 1, 1e9, "l of the paper, in tokens"),
       param("c", &Params::c, 0, 1e9, "fixed: tokens at each stretch's end that all may read"),
       param("heads", &Params::heads, {"merged", "alternate", "far", "own"},
             "how heads share the two sets")});
  return r;
}

}  // namespace regard
