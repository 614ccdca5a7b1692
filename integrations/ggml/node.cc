#include "node.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "stages/slopes.h"

namespace regard::ggml {
namespace {

constexpr int64_t kMaxHeadSize = 576;  // the CPU kernels' limit

std::optional<DType> dtype_of(ggml_type t) {
  switch (t) {
    case GGML_TYPE_F32:
      return DType::f32;
    case GGML_TYPE_F16:
      return DType::f16;
    case GGML_TYPE_BF16:
      return DType::bf16;
    case GGML_TYPE_Q8_0:
      return DType::q8_0;
    case GGML_TYPE_Q4_0:
      return DType::q4_0;
    case GGML_TYPE_Q4_1:
      return DType::q4_1;
    case GGML_TYPE_Q5_0:
      return DType::q5_0;
    case GGML_TYPE_Q5_1:
      return DType::q5_1;
    case GGML_TYPE_IQ4_NL:
      return DType::iq4_nl;
    default:
      return std::nullopt;
  }
}

// ggml orders axes from the innermost: [channels, tokens, heads, sequences].
View view_of(const ggml_tensor* t) {
  View v;
  v.data = t->data;
  v.dtype = *dtype_of(t->type);
  for (int axis = 0; axis < 4; ++axis) {
    v.size[axis] = t->ne[3 - axis];
    v.stride[axis] = int64_t(t->nb[3 - axis]);
  }
  if (info(v.dtype).block > 1) v.stride[3] = 0;  // blocks have no stride an element
  return v;
}

View sequences_of(View v, int64_t first, int64_t count) {
  v.data = v.at(first, 0, 0);
  v.size[0] = count;
  return v;
}

float param(const ggml_tensor* op, int i) {
  float f;
  std::memcpy(&f, op->op_params + i, sizeof f);
  return f;
}

std::string kv_refusal(const char* name, const ggml_tensor* t, const ggml_tensor* q) {
  if (!dtype_of(t->type)) return fmt::format("{} of type {}", name, ggml_type_name(t->type));
  if (t->nb[0] != ggml_type_size(t->type)) return fmt::format("{} rows not contiguous", name);
  if (t->ne[3] != q->ne[3]) return fmt::format("{} shared by several sequences", name);
  if (t->ne[0] > kMaxHeadSize)
    return fmt::format("{} head size {}, at most {}", name, t->ne[0], kMaxHeadSize);
  return "";
}

std::string mask_refusal(const ggml_tensor* m, const ggml_tensor* q, const ggml_tensor* k) {
  if (m->type != GGML_TYPE_F16) return fmt::format("mask of type {}", ggml_type_name(m->type));
  if (m->nb[0] != sizeof(uint16_t)) return "mask rows not contiguous";
  if (m->ne[2] != 1) return fmt::format("{} masks for {} heads", m->ne[2], q->ne[2]);
  if (m->ne[3] != 1 && m->ne[3] != q->ne[3])
    return fmt::format("{} masks for {} sequences", m->ne[3], q->ne[3]);
  if (m->ne[0] < k->ne[1] || m->ne[1] < q->ne[1])
    return fmt::format("mask of {} keys and {} queries for {} and {}", m->ne[0], m->ne[1], k->ne[1],
                       q->ne[1]);
  return "";
}

Score score_of(const ggml_tensor* op, const MaskPart& mask, int64_t sequence, int64_t sequences) {
  Score s;
  s.softcap = param(op, 2);
  if (!mask.numeric) return s;
  const ggml_tensor* m = op->src[3];
  View bias = view_of(m);  // [sequences or 1, 1, queries, cells]
  if (bias.size[0] > 1) bias = sequences_of(bias, sequence, sequences);
  bias.size[2] = op->src[0]->ne[1];
  bias.size[3] = mask.nk;
  s.bias = Tensor{bias, nullptr};
  const float max_bias = param(op, 1);
  if (max_bias > 0)
    s.bias_scale = alibi_slopes(op->src[0]->ne[2], max_bias, SlopeRule::nearest_power);
  return s;
}

}  // namespace

std::string node_refusal(const ggml_tensor* op) {
  const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *m = op->src[3],
                    *sinks = op->src[4];
  if (q->type != GGML_TYPE_F32) return fmt::format("Q of type {}", ggml_type_name(q->type));
  if (op->type != GGML_TYPE_F32) return fmt::format("output of type {}", ggml_type_name(op->type));
  if (std::string r = kv_refusal("K", k, q); !r.empty()) return r;
  if (std::string r = kv_refusal("V", v, q); !r.empty()) return r;
  if (k->ne[2] != v->ne[2] || q->ne[2] % k->ne[2] != 0)
    return fmt::format("{} query heads over {} K heads and {} V heads", q->ne[2], k->ne[2],
                       v->ne[2]);
  if (m)
    if (std::string r = mask_refusal(m, q, k); !r.empty()) return r;
  if (sinks && (sinks->type != GGML_TYPE_F32 || ggml_nelements(sinks) != q->ne[2] ||
                !ggml_is_contiguous(sinks)))
    return fmt::format("sinks of type {}, {} for {} heads", ggml_type_name(sinks->type),
                       ggml_nelements(sinks), q->ne[2]);
  return "";
}

Piece make_piece(const ggml_tensor* op, const MaskPart& mask, int64_t sequence, int64_t sequences) {
  Piece piece;
  Inputs& x = piece.inputs;
  x.q = sequences_of(view_of(op->src[0]), sequence, sequences);
  x.k = slice_tokens(sequences_of(view_of(op->src[1]), sequence, sequences), 0, mask.nk);
  x.v = slice_tokens(sequences_of(view_of(op->src[2]), sequence, sequences), 0, mask.nk);
  x.problem = Problem::of_views(x.q, x.k, x.v, param(op, 0));
  x.causal = mask.shape == MaskPart::Shape::causal;
  if (mask.shape == MaskPart::Shape::causal || mask.shape == MaskPart::Shape::window)
    x.problem.offset = mask.offset;
  x.score = score_of(op, mask, sequence, sequences);
  if (const ggml_tensor* sinks = op->src[4]) {
    x.norm.kind = NormKind::softmax_sink;
    const float* s = static_cast<const float*>(sinks->data);
    x.norm.sink.assign(s, s + sinks->ne[0]);
  }
  // ggml's output is [channels, heads, tokens, sequences]: heads and tokens the other way round.
  piece.out = sequences_of(view_of(op), sequence, sequences);
  std::swap(piece.out.size[1], piece.out.size[2]);
  std::swap(piece.out.stride[1], piece.out.stride[2]);
  return piece;
}

Plan exact_plan(const Inputs& x, const MaskPart& mask) {
  Plan plan = mask.shape == MaskPart::Shape::window ? Plan::band(x.problem, mask.left, 0)
                                                    : Plan::all(x.problem);
  Branch& b = plan.branches[0];
  b.rule.causal = mask.shape == MaskPart::Shape::causal;
  if (mask.shape == MaskPart::Shape::general) {
    b.rule.mask = mask.pairs;
    if (mask.cover)
      b.cover = {mask.cover->bk == 1 ? CoverKind::columns : CoverKind::tiles, {}, mask.cover};
  }
  plan.score(x.score).norm(x.norm);
  if (!x.numeric.empty()) plan.numeric(x.numeric);
  plan.lowered = mask.shape == MaskPart::Shape::general;  // done when the mask was read
  return plan;
}

int layer_of(const ggml_tensor* op) {
  const ggml_tensor* k = op->src[1];
  // A cache in f32 comes as a copy in f16.
  while (k->view_src || k->op == GGML_OP_CPY) k = k->view_src ? k->view_src : k->src[0];
  const std::string_view name = k->name;
  const size_t at = name.rfind("_l");
  if (at == std::string_view::npos) return -1;
  int layer = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + at + 2, end, layer);
  return error == std::errc() && stop == end ? layer : -1;
}

}  // namespace regard::ggml
