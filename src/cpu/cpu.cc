#include "cpu/cpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "cpu/isa.h"
#include "cpu/linear.h"
#include "regard/status.h"

// One compilation a target. SSE4 and the Ice Lake variant of AVX-512 add nothing here but time.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The per-target code.
#include "cpu/item-inl.h"

#if HWY_ONCE
namespace regard::cpu {

HWY_EXPORT(RunItem);
HWY_EXPORT(TargetName);
HWY_EXPORT(Lanes);

namespace {

std::vector<int64_t> compiled_and_supported() {
  hwy::SetSupportedTargetsForTest(0);
  std::vector<int64_t> all;
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    all.push_back(rest & -rest);  // lower bits are better targets
  }
  return all;
}

// REGARD_CPU_TARGET, read once, before the first dispatch.
void choose_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (const char* name = std::getenv("REGARD_CPU_TARGET")) force_target(name);
  });
}

}  // namespace

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (int64_t t : compiled_and_supported()) names.push_back(hwy::TargetName(t));
  return names;
}

void force_target(const std::string& name) {
  std::string known;
  for (int64_t t : compiled_and_supported()) {
    if (name == hwy::TargetName(t)) {
      hwy::SetSupportedTargetsForTest(t);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      return;
    }
    known += std::string(known.empty() ? "" : ", ") + hwy::TargetName(t);
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  if (!name.empty()) {
    throw Error("cpu: target '" + name + "' is not one of this machine's: " + known);
  }
}

std::string target() {
  choose_once();
  return HWY_DYNAMIC_DISPATCH(TargetName)();
}

std::string numeric_refusal(Numeric n) {
  if (n == Numeric::f32 || n == Numeric::int16) return "";
  const std::string name = n == Numeric::bf16 ? "bf16" : "int8";
  if (!has_dot())
    return "numeric '" + name + "' needs AVX-512 with BF16 and VNNI, which this machine lacks";
  // Packing is the one of 512-bit vectors.
  const std::string in_use = target();
  if (HWY_DYNAMIC_DISPATCH(Lanes)() != 16)
    return "numeric '" + name + "' needs 512-bit vectors; the instruction set in use is " + in_use;
  return "";
}

std::string refusal(const Work& w) {
  const Branch& b = *w.branch;
  const auto plain = [](DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; };
  const auto key_type = [&](DType t) { return plain(t) || info(t).block > 1; };
  for (const View* v : {&w.q, &w.k, &w.v}) {
    if (v->device != Device::cpu) return "tensors must be in the CPU's memory";
  }
  if (!plain(w.q.dtype))
    return std::string("q is ") + info(w.q.dtype).name + ", not f32, f16, bf16";
  for (const View* v : {&w.k, &w.v}) {
    if (!key_type(v->dtype)) {
      return std::string(v == &w.k ? "k" : "v") + " is " + info(v->dtype).name +
             ", not f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl";
    }
  }
  const auto writable = [&](DType t) { return plain(t) || t == DType::f64; };
  if (w.finish && !writable(w.out.out.dtype)) {
    return std::string("out is ") + info(w.out.out.dtype).name + ", not f64, f32, f16, bf16";
  }
  if (w.out.column_mass) return "column mass is the reference's";
  if (w.problem.dk > 576 || w.problem.dv > 576) return "head sizes above 576";
  if (b.source.kind != SourceKind::raw && !b.score.alibi.empty()) return "alibi on pooled keys";
  if (b.value_skip > 0 && b.cover.list && b.cover.list->bk % kKeys != 0)
    return "skipping values of blocks of 64 keys in tiles of " + std::to_string(b.cover.list->bk);
  return numeric_refusal(parse_numeric(b.numeric));
}

void run(const Work& w) {
  choose_once();
  if (w.branch->weight.kind != WeightKind::exponential) return run_linear(w);
  const Call call(w);
  const Items items = make_items(w);
  const int64_t dk = w.problem.dk, dv = w.problem.dv;
  std::unique_ptr<float[]> acc(new float[items.slots * dv]);
  std::vector<PartialHead<float>> head(items.slots);
  const Slots slots{acc.get(), head.data()};
  const auto run_item = HWY_DYNAMIC_DISPATCH(RunItem);
  parallel_for(int64_t(items.items.size()), w.threads, [&](int64_t n, int) {
    const Item& item = items.items[n];
    run_item(call, items.tiles[item.tile], item, Scratch(items.max_rows, dk, dv), slots);
  });
  if (items.slots == 0) return;
  parallel_for(int64_t(items.tiles.size()), w.threads, [&](int64_t n, int) {
    if (items.tiles[n].splits > 1) merge_splits(call, items.tiles[n], slots);
  });
}

}  // namespace regard::cpu
#endif  // HWY_ONCE
