#include <ggml.h>

#include <charconv>
#include <cstring>
#include <string_view>

#include "cli/capture.h"

namespace regard::cli {
namespace {

// "Qcur-12", "Kcur_normed-3": which of q and k, and the layer; 0 where it is neither.
char parse_name(std::string_view name, int64_t* layer) {
  const char which = name.substr(0, 4) == "Qcur" ? 'q' : name.substr(0, 4) == "Kcur" ? 'k' : 0;
  const size_t dash = name.rfind('-');
  if (!which || dash == std::string_view::npos) return 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + dash + 1, end, *layer);
  return error == std::errc() && stop == end ? which : 0;
}

// Tokens [first, first + n) of `to` get the rows of `from`, head by head as `pick` says.
void copy_tokens(const View& from, const Tensor& to, int64_t first,
                 const std::vector<int64_t>& pick) {
  std::vector<float> row(size_t(from.size[3]));
  for (size_t h = 0; h < pick.size(); ++h)
    for (int64_t i = 0; i < from.size[2]; ++i) {
      read_row(from, 0, pick[h], i, row.data());
      write_row(to.view, 0, int64_t(h), first + i, row.data());
    }
}

std::vector<int64_t> count_to(int64_t n) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(i);
  return out;
}

// The KV head of each query head.
std::vector<int64_t> kv_of(const std::vector<int64_t>& heads, int64_t group) {
  std::vector<int64_t> out;
  for (const int64_t h : heads) out.push_back(h / group);
  return out;
}

}  // namespace

Collector::Collector(const Model& model, const std::vector<int64_t>& layers,
                     std::vector<int64_t> heads, int64_t tokens)
    : heads_(std::move(heads)),
      tokens_(tokens),
      model_heads_(model.heads()),
      model_kv_heads_(model.kv_heads()) {
  for (const int64_t l : layers) layers_[l];
}

void Collector::add(const ggml::Node& node) {
  const auto it = layers_.find(node.layer);
  if (it == layers_.end() || !node.inputs) return;
  Layer& l = it->second;
  const Inputs& x = *node.inputs;
  const std::vector<int64_t> q_heads = heads_.empty() ? count_to(x.problem.heads) : heads_;
  const std::vector<int64_t> kv_heads =
      heads_.empty() ? count_to(x.problem.kv_heads) : kv_of(heads_, x.problem.group());
  if (!l.q) {
    const auto whole = [&](const View& v, size_t heads) {
      const DType type = info(v.dtype).block == 1 ? v.dtype : DType::f32;  // quantised: as f32
      return make_tensor(type, {1, int64_t(heads), tokens_, v.size[3]});
    };
    l.q = whole(x.q, q_heads.size());
    l.k = whole(x.k, kv_heads.size());
    l.v = whole(x.v, kv_heads.size());
    l.scale = x.problem.scale;
    l.kv_heads = x.problem.kv_heads;
  }
  const int64_t n = std::min(x.problem.nq, tokens_ - l.tokens);
  copy_tokens(slice_tokens(x.q, 0, n), l.q, l.tokens, q_heads);
  // The strip's own keys are the newest of the cache.
  copy_tokens(slice_tokens(x.k, x.problem.nk - n, n), l.k, l.tokens, kv_heads);
  copy_tokens(slice_tokens(x.v, x.problem.nk - n, n), l.v, l.tokens, kv_heads);
  l.tokens += n;
}

bool Collector::on_graph_node(const ggml_tensor* t, bool ask) {
  int64_t layer = -1;
  const char which = parse_name(t->name, &layer);
  const bool wanted = which && layers_.count(layer) && t->op != GGML_OP_ROPE &&
                      t->type == GGML_TYPE_F32 && t->op != GGML_OP_VIEW;
  if (ask || !wanted) return wanted || !ask;
  before(t, &layers_[layer], which == 'q');
  return true;
}

// A node of [head size, heads, tokens] or [head size x heads, tokens]. The same name may come twice
// a strip (projected, then normed): the last one before the rotation stays, so each writes over the
// strip's rows; the strip ends when the attention node has counted its tokens.
void Collector::before(const ggml_tensor* t, Layer* l, bool query) {
  const int64_t heads = query ? model_heads_ : model_kv_heads_;
  const bool flat = t->ne[2] == 1 && t->ne[0] % heads == 0;
  const int64_t tokens = flat ? t->ne[1] : t->ne[2], dim = flat ? t->ne[0] / heads : t->ne[0];
  if (!flat && t->ne[1] != heads) return;
  View from;
  from.data = t->data;
  from.dtype = DType::f32;
  from.size = {1, heads, tokens, dim};
  from.stride = {0, flat ? dim * int64_t(sizeof(float)) : int64_t(t->nb[1]),
                 int64_t(flat ? t->nb[1] : t->nb[2]), int64_t(t->nb[0])};
  std::vector<int64_t> pick = count_to(heads);
  if (!heads_.empty()) pick = query ? heads_ : kv_of(heads_, model_heads_ / model_kv_heads_);
  Tensor& all = query ? l->q_before : l->k_before;
  if (!all) all = make_tensor(DType::f32, {1, int64_t(pick.size()), tokens_, dim});
  const int64_t n = std::min(tokens, tokens_ - l->tokens);
  copy_tokens(slice_tokens(from, 0, n), all, l->tokens, pick);
  (query ? l->q_seen : l->k_seen) = l->tokens + n;
}

}  // namespace regard::cli
