#include "plan/work.h"

namespace regard {
namespace {

bool same_tensor(const Tensor& a, const Tensor& b) {
  return a.view.data == b.view.data && a.view.size == b.view.size &&
         a.view.stride == b.view.stride && a.view.dtype == b.view.dtype;
}

bool same_score(const Score& a, const Score& b) {
  return a.softcap == b.softcap && a.alibi == b.alibi && same_tensor(a.bias, b.bias) &&
         a.bias_scale == b.bias_scale && same_tensor(a.key_bias, b.key_bias);
}

bool same_rule(const Rule& a, const Rule& b) {
  return a.causal == b.causal && a.window.left == b.window.left &&
         a.window.right == b.window.right && a.window.sink == b.window.sink && a.mask == b.mask;
}

bool same_norm(const Norm& a, const Norm& b) {
  return a.kind == b.kind && a.sink == b.sink && a.shift == b.shift;
}

bool same_rows(const IndexList& a, const IndexList& b) {
  return a.batch == b.batch && a.heads == b.heads && a.rows == b.rows && a.bq == b.bq;
}

}  // namespace

bool fusible(const Plan& plan) {
  if (plan.combine != Combine::same) return false;
  const Branch& first = plan.branches[0];
  for (const Branch& b : plan.branches) {
    if (!b.cover.list || b.source.kind != SourceKind::raw) return false;
    if (b.value_skip > 0 || b.source.value_map) return false;
    if (b.weight.kind != WeightKind::exponential) return false;
    if (b.order || !b.cover.list.shape().list_of.empty()) return false;
    if (b.numeric != first.numeric || !same_rows(b.cover.list.shape(), first.cover.list.shape()))
      return false;
    if (!same_score(b.score, first.score) || !same_rule(b.rule, first.rule)) return false;
    if (!same_norm(b.norm, first.norm)) return false;
  }
  return true;
}

}  // namespace regard
