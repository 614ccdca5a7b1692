#include "recipes/recipe.h"
#include "stages/features.h"

namespace regard {
namespace {

struct Params {
  Tensor gate, k_position, k_first, k_second, v_position, v_first, v_second;
  std::string act = "relu";
  double rope = 0;
  int64_t width = 32, stride = 16, block = 64;
  int64_t topk = 16, init = 1, local = 1, window = 512;
};

Plan plan(const Ctx& ctx, const Inputs& x, const Params& p) {
  const int b = int(p.block);
  const Tensor k = features::compress(
      ctx, "k", x.k, {p.width, p.stride, p.rope, p.k_position, p.k_first, p.k_second, p.act});
  const Tensor v = features::compress(
      ctx, "v", x.v, {p.width, p.stride, 0, p.v_position, p.v_first, p.v_second, p.act});
  const TileBits forced = keep::where(x.problem, 1, b, 1, [&](int64_t, int64_t own, int64_t c) {
    return c <= own && (c < p.init || own - c <= p.local);
  });
  const TileBits best = estimate::best_compressed(
      ctx, x, {.width = p.width, .stride = p.stride, .block = p.block, .keys = k},
      {.cut = Selector::Cut::top_k, .amount = double(p.topk), .forced = &forced});
  return Plan::gated({Plan::all(x.problem).given(int(p.width), int(p.stride), k, v),
                      Plan::tiles(x.problem, 1, b, best), Plan::band(x.problem, p.window, 0)},
                     estimate::per_row(x.problem, p.gate));
}

}  // namespace

REGARD_DEFINE_RECIPE(nsa) {
  static const Record r = recipe<Params>(
      {
          .name = "nsa",
          .title = "NSA: compressed, selected and nearby keys, gated",
          .family = "dynamic",
          .paper = "Yuan et al., Native Sparse Attention, ACL 2025, arXiv 2502.11089",
          .year = 2025,
          .summary = "Three attentions are weighed by learned gates: to compressed keys; to the "
                     "blocks which "
                     "that attention points at (one choice for a group of heads); and to a window.",
          .when = "Models trained with it; `gate` comes from their gate projection (after the "
                  "sigmoid), phi from `k_first` and the rest. Without those phi is a plain mean.",
          .cost = "phi, 1 / stride of a QK product; then topk blocks, a window, n / stride keys.",
          .differs =
              "Certain: the branches, phi a learned map of a block's tokens and their places in it "
              "(equation 7; its shape is not given: one layer, or two), block scores by equation "
              "9 (weights 1, 2, 2, 2, 1 at the default sizes), summed over the group. From the "
              "field's reference (the authors gave no code): phi acts before rotation, its key "
              "stands at its first token's place, first and two nearest blocks are forced, the "
              "window has 512 keys and the query's own. FSA's copy scores with one head of the "
              "group; a gate that heads share is given with one head.",
          .needs = {"causal", "single", "weights"},
          .prefix = true,
          .twin = "",
      },
      plan,
      {param("gate", &Params::gate, "[1|batch, 1|heads, nq, 3]: of the branches, in order"),
       optional(param("k_position", &Params::k_position, "added: [1, 1|kv_heads, width, dk]")),
       optional(param("k_first", &Params::k_first, "phi: [1, 1|kv_heads, width dk (+1), any]")),
       optional(param("k_second", &Params::k_second, "layer 2: [1, 1|kv_heads, any (+1), dk]")),
       optional(param("v_position", &Params::v_position, "the same of values")),
       optional(param("v_first", &Params::v_first, "the same of values")),
       optional(param("v_second", &Params::v_second, "the same of values")),
       param("act", &Params::act, {"relu", "gelu", "silu"}, "between the layers"),
       param("rope", &Params::rope, 0, 1e12, "base of the rotation of q and k; 0: none"),
       param("width", &Params::width, 1, 65536, "tokens a compressed key"),
       param("stride", &Params::stride, 1, 65536, "tokens from one to the next"),
       param("block", &Params::block, 1, 65536, "keys a selected block"),
       param("topk", &Params::topk, 1, 1e9, "blocks a query reads, forced ones included"),
       param("init", &Params::init, 0, 1e9, "first blocks, always read"),
       param("local", &Params::local, 0, 1e9, "blocks before the own one, always read"),
       param("window", &Params::window, 0, 1e12, "keys of the window before the query's own")});
  return r;
}

}  // namespace regard
