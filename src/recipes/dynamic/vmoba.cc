#include "recipes/recipe.h"
#include "stages/lists.h"

namespace regard {
namespace {

struct Params {
  int64_t frames = 0, height = 1, width = 1;
  int64_t chunk_t = 512, chunk_h = 0, chunk_w = 0;
  std::string cut = "threshold";
  double tau = 0.25;
  int64_t topk = 3;
  std::string scope = "query";
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const auto chunks = lists::grid_chunks(x.problem, {p.frames, p.height, p.width},
                                         {p.chunk_t, p.chunk_h, p.chunk_w});
  const auto scope = p.scope == "query"  ? Selector::Scope::row
                     : p.scope == "head" ? Selector::Scope::head
                                         : Selector::Scope::all;
  const bool by_value = p.cut == "threshold", alone = p.scope == "query";
  const auto gates = lists::chunk_gates(ctx, x, chunks, scope);
  const TileBits own = lists::own_chunks(x.problem, chunks);
  const double rows =
      alone ? 1.0
            : double(x.problem.nq) *
                  (p.scope == "all" ? double(x.problem.heads * x.problem.batch) : 1.0);
  return lists::by_chunk(ctx, x, chunks,
                         select(ctx, gates,
                                {.cut = by_value ? Selector::Cut::coverage : Selector::Cut::top_k,
                                 .amount = by_value ? p.tau : double(p.topk) * rows,
                                 .scope = scope,
                                 .forced = &own,
                                 .min_count = by_value ? int64_t(rows) + 1 : 0}));
}

}  // namespace

REGARD_DEFINE_RECIPE(vmoba) {
  static const Record r = recipe<Params>(
      {
          .name = "vmoba",
          .title = "VMoBA: boxes of video tokens, chosen by every query",
          .family = "dynamic",
          .paper = "Wu et al., VMoBA: Mixture-of-Block Attention for Video Diffusion Models, ICLR "
                   "2026, arXiv 2506.23858",
          .year = 2025,
          .summary = "Tokens of a video are cut into boxes: frames, columns through all frames, or "
                     "blocks of both, one shape a layer in turn. Each query reads its own box and "
                     "the boxes whose mean key suits it best, until `tau` of the gates' sum is "
                     "reached.",
          .when = "Video diffusion models, trained with it or not, beyond some 30K tokens.",
          .cost = "Gates: 1 / box of a QK product. Boxes that are not runs of tokens are gathered.",
          .differs =
              "At least one other box of the scope is kept, as published; tau above 1 keeps all, "
              "where the authors' code then keeps two, and a query alone reads its own box, where "
              "their code reads everything. Gates are unscaled products spread to 0..1 over the "
              "scope. Which layer has which shape is the caller's. Under causality (our reading) "
              "a box counts once its first token is seen.",
          .needs = {"single"},
          .twin = "tau=2",
      },
      plan,
      {param("frames", &Params::frames, 0, 1e12, "tokens along time; 0: a plain sequence"),
       param("height", &Params::height, 1, 1e9, "tokens down a frame"),
       param("width", &Params::width, 1, 1e9, "tokens across a frame"),
       param("chunk_t", &Params::chunk_t, 0, 1e12, "box, along time; 0: whole"),
       param("chunk_h", &Params::chunk_h, 0, 1e9, "box, down; 0: whole"),
       param("chunk_w", &Params::chunk_w, 0, 1e9, "box, across; 0: whole"),
       param("cut", &Params::cut, {"threshold", "topk"}, "share of the gates, or a number"),
       param("tau", &Params::tau, 0, 2, "share of the gates' sum, own box first"),
       param("topk", &Params::topk, 1, 1e9, "boxes a query, its own included"),
       param("scope", &Params::scope, {"query", "head", "all"}, "what competes")});
  return r;
}

}  // namespace regard
