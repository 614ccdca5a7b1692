// Panels as vectors: the exponential, and the one order of their sums. Layer: stages (per target).
#if defined(REGARD_STAGES_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_STAGES_VECTORS_INL_H_
#undef REGARD_STAGES_VECTORS_INL_H_
#else
#define REGARD_STAGES_VECTORS_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "algebra/exponential.h"
#include "core/half.h"
#include "core/transpose-inl.h"
#include "hwy/highway.h"
#include "stages/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace regard::matrix::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, kPanel>;
using V = hn::Vec<F>;
constexpr F f;
constexpr int64_t kLanes = int64_t(hn::MaxLanes(F()));
constexpr int64_t kVectors = kPanel / kLanes;  // a panel's width in vectors

// a * b + c rounded once, on machines without the instruction too.
HWY_INLINE V Fused(V a, V b, V c) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(f, std::fma(hn::GetLane(a), hn::GetLane(b), hn::GetLane(c)));
#else
  return hn::MulAdd(a, b, c);
#endif
}

// kLanes numbers of 32 or 16 bits. (Highway's own conversion of one f16 takes NaN for a number.)
HWY_INLINE V Widen(const float* p) { return hn::LoadU(f, p); }
template <class Half>
HWY_INLINE V Widen(const Half* p) {
#if HWY_TARGET == HWY_SCALAR
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  const bool brain = std::is_same_v<Half, hwy::bfloat16_t>;
  return hn::Set(f, brain ? bf16_to_f32(bits) : f16_to_f32(bits));
#else
  return hn::PromoteTo(f, hn::LoadU(hn::Rebind<Half, F>(), p));
#endif
}

// exponential::of, the same operations.
HWY_INLINE V Exponential(V x) {
  namespace e = exponential;
  const hn::RebindToSigned<F> i32;
  const V n = hn::Round(hn::Mul(x, hn::Set(f, e::kLog2e)));
  const V r = Fused(n, hn::Set(f, -e::kLn2Low), Fused(n, hn::Set(f, -e::kLn2High), x));
  V y = hn::Set(f, e::kSeries[0]);
  REGARD_UNROLL
  for (int i = 1; i < 8; ++i) y = Fused(y, r, hn::Set(f, e::kSeries[i]));
  // 2^n in two factors.
  const auto whole = hn::ConvertTo(i32, n);
  const auto half = hn::ShiftRight<1>(whole), rest = hn::Sub(whole, half);
  const auto power = [&](auto k) HWY_ATTR {
    return hn::BitCast(f, hn::ShiftLeft<23>(hn::Add(k, hn::Set(i32, 127))));
  };
  y = hn::Mul(hn::Mul(y, power(half)), power(rest));
  y = hn::IfThenElse(hn::Gt(x, hn::Set(f, e::kMost)),
                     hn::Set(f, std::numeric_limits<float>::infinity()), y);
  y = hn::IfThenZeroElse(hn::Lt(x, hn::Set(f, e::kLeast)), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// The upper half of 2 * kWidth sums is added to the lower, until one is left.
template <int kWidth>
HWY_INLINE float Fold(float* lane) {
  const hn::CappedTag<float, kWidth> narrow;
  for (int l = 0; l < kWidth; l += int(hn::MaxLanes(narrow)))
    hn::Store(hn::Add(hn::Load(narrow, lane + l), hn::LoadU(narrow, lane + kWidth + l)), narrow,
              lane + l);
  if constexpr (kWidth == 1) return lane[0];
  return Fold<(kWidth > 1 ? kWidth / 2 : 1)>(lane);
}

// Channels [c, c + kLanes) of kLanes keys, rows `depth` apart, to kLanes lines of one vector each.
inline void PackVectors(const float* rows, int64_t depth, Line* panel, int64_t vector) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t t = 0; t < depth; ++t) panel[t].x[vector] = rows[t];
#else
  constexpr int64_t kStride = sizeof(Line) / sizeof(float);
  int64_t t = 0;
  for (; t + 4 <= depth; t += 4)
    regard::HWY_NAMESPACE::Transpose4(f, rows + t, depth, panel[t].x + vector * kLanes, kStride, 4);
  for (; t < depth; ++t)
    for (int64_t l = 0; l < kLanes; ++l) panel[t].x[vector * kLanes + l] = rows[l * depth + t];
#endif
}

}  // namespace regard::matrix::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
