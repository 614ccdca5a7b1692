#include "cuda/views.h"

#include <fmt/format.h>

#include "cuda/cuda.h"

namespace regard::cuda {
namespace {

bool strides_fit(const View& v) {
  if (v.size[3] > 1 && v.stride[3] != info(v.dtype).bytes) return false;
  for (size_t a = 0; a < 3; ++a)
    if (v.stride[a] % 16 != 0) return false;
  return true;
}

}  // namespace

std::string views_refusal(const Tensors& t) {
  if (t.q.device != Device::cuda) return "tensors are in the CPU's memory";
  if (std::string why = absence(); !why.empty()) return why;
  const auto half = [](DType x) { return x == DType::f16 || x == DType::bf16; };
  if (!half(t.q.dtype) || t.k.dtype != t.q.dtype || t.v.dtype != t.q.dtype)
    return fmt::format("q, k, v are {}, {}, {}; accepted: all f16 or all bf16",
                       info(t.q.dtype).name, info(t.k.dtype).name, info(t.v.dtype).name);
  if (!half(t.out.out.dtype) && t.out.out.dtype != DType::f32)
    return fmt::format("out is {}, not f32, f16, bf16", info(t.out.out.dtype).name);
  if (t.out.lse && t.out.lse.dtype != DType::f32)
    return fmt::format("lse is {}, not f32", info(t.out.lse.dtype).name);
  if (t.out.column_mass) return "column mass is computed by ref only, on the CPU";
  for (const View* v : {&t.q, &t.k, &t.v, &t.out.out})
    if (!strides_fit(*v))
      return fmt::format(
          "{} has strides [{},{},{},{}] bytes; accepted: channels side by side, the others "
          "multiples of 16",
          v->shape(), v->stride[0], v->stride[1], v->stride[2], v->stride[3]);
  return "";
}

std::string plan_refusal(const Plan& plan) {
  for (const Branch& b : plan.branches) {
    if (b.order) return "an order";
    if (b.weight.kind != WeightKind::exponential) return "weights of features (linear attention)";
    if (b.source.value_map) return "mapped values";
    if (b.source.kind == SourceKind::given) return "keys of the method's own";
    if (b.value_skip > 0) return "skipped values";
    if (b.cover.list && !b.cover.list.shape().list_of.empty()) return "tile rows that share a list";
  }
  return "";
}

}  // namespace regard::cuda
