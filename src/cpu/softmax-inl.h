// Online softmax of one row over one tile of keys, and its sigmoid counterpart. Layer: cpu (per
// target). FlashAttention-2 (arXiv 2307.08691), algorithm 1, in base 2.
#if defined(REGARD_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_SOFTMAX_INL_H_
#undef REGARD_CPU_SOFTMAX_INL_H_
#else
#define REGARD_CPU_SOFTMAX_INL_H_
#endif

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// An Arithmetic that rounds its weights (kRounds) sums them itself, as rounded, so that they still
// add up to the sum they are divided by; and its 2^x need not be better than its rounding.

// Once a score is +inf, the +inf scores share all the weight (merge_scales says the same).
inline void InfiniteRow(float* HWY_RESTRICT s, int vecs, VF* total) {
  const DF d;
  for (int v = 0; v < vecs; ++v) {
    const VF x = hn::Load(d, s + v * kLanes);
    const VF p =
        hn::IfThenElse(hn::Lt(x, hn::Set(d, kInf)), hn::Zero(d), hn::Min(x, hn::Set(d, 1.0f)));
    hn::Store(hn::IfThenElse(hn::Eq(x, x), p, x), d, s + v * kLanes);  // NaN stays
    *total = hn::Add(*total, hn::Load(d, s + v * kLanes));
  }
}

// Turns scores s[vecs] into weights 2^(s - max), moves the row's maximum, its sum (kept as a
// vector) and its accumulator o[width]. NaN scores make NaN weights and leave other rows alone.
// kVecs: their number where it is known before, else 0.
template <class Arithmetic, int kVecs>
HWY_INLINE void SoftmaxRow(float* HWY_RESTRICT s, int any_vecs, float* HWY_RESTRICT max,
                           float* HWY_RESTRICT sum, float* HWY_RESTRICT o, int64_t width) {
  const DF d;
  const int vecs = kVecs ? kVecs : any_vecs;
  VF top = hn::Load(d, s);
  REGARD_UNROLL
  for (int v = 1; v < vecs; ++v) top = hn::Max(top, hn::Load(d, s + v * kLanes));
  VF total = hn::Load(d, sum);
  if (!hn::AllFalse(d, hn::Gt(top, hn::Set(d, *max)))) {
    const float higher = hn::GetLane(hn::MaxOfLanes(d, top));
    if (*max > -kInf) {  // else sum and o are still zero
      const VF scale = Exp2(hn::Set(d, *max - higher));
      total = hn::Mul(total, scale);
      for (int64_t c = 0; c < width; c += kLanes) {
        hn::Store(hn::Mul(hn::Load(d, o + c), scale), d, o + c);
      }
    }
    *max = higher;
  }
  if (*max == kInf) {
    VF weights = hn::Zero(d);
    InfiniteRow(s, vecs, &weights);
    hn::Store(Arithmetic::kRounds ? total : hn::Add(total, weights), d, sum);
    return;
  }
  // A row that has met no key yet has nothing to subtract: -inf - -inf would be NaN.
  const VF base = hn::Set(d, *max == -kInf ? 0.0f : *max);
  REGARD_UNROLL
  for (int v = 0; v < vecs; ++v) {
    const VF p = Exp2<Arithmetic::kRounds>(hn::Sub(hn::Load(d, s + v * kLanes), base));
    hn::Store(p, d, s + v * kLanes);
    if (!Arithmetic::kRounds) total = hn::Add(total, p);
  }
  hn::Store(total, d, sum);
}

// Weights sigmoid(s + shift); masked scores (-inf) give exactly 0.
template <class Arithmetic>
HWY_INLINE void SigmoidRow(float* HWY_RESTRICT s, int vecs, float shift, float* HWY_RESTRICT sum) {
  const DF d;
  VF total = hn::Load(d, sum);
  for (int v = 0; v < vecs; ++v) {
    const VF p = Sigmoid2(hn::Add(hn::Load(d, s + v * kLanes), hn::Set(d, shift)));
    hn::Store(p, d, s + v * kLanes);
    if (!Arithmetic::kRounds) total = hn::Add(total, p);
  }
  hn::Store(total, d, sum);
}

inline float SumLanes(const float* sum) {
  const DF d;
  return hn::GetLane(hn::SumOfLanes(d, hn::Load(d, sum)));
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
