// Vector types and the few functions attention needs: 2^x and tanh. Layer: cpu (per target).
#if defined(REGARD_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_SIMD_INL_H_
#undef REGARD_CPU_SIMD_INL_H_
#else
#define REGARD_CPU_SIMD_INL_H_
#endif

#include <cmath>
#include <limits>

#include "cpu/items.h"
#include "hwy/highway.h"

#undef REGARD_UNROLL
#if HWY_COMPILER_CLANG
#define REGARD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define REGARD_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;

inline constexpr int kLanes = HWY_LANES(float);
inline constexpr int kPanel = 2 * kLanes;        // columns of a packed panel
inline constexpr int kKeyVecs = kKeys / kLanes;  // vectors of a full key tile
// The widest row panel: kMaxRows x 2 accumulators, two columns and one broadcast fit the registers
// (32 with AVX-512: 24 + 3; 16 with AVX2: 12 + 3).
inline constexpr int kMaxRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 4;
static_assert(kKeys % kPanel == 0);

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kLog2e = 1.442695040888963f, kLn2 = 0.6931471805599453f;

inline int round_up(int64_t n, int to) { return int((n + to - 1) / to * to); }

// 2^x for x <= 0; 0 below -126 (where a softmax weight is below 2^-126 of the largest). NaN stays.
// x = n + f, |f| <= 1/2; 2^f by the minimax polynomial of relative error 9.2e-8 with p(0) = 1.
// Adding 1.5 * 2^23 + 127 leaves n + 127 in the low bits, which shift into the exponent field.
// kRough: relative error 1.0e-4 by three terms, for results that are then rounded to bf16 (2e-3).
template <bool kRough = false>
HWY_INLINE VF Exp2(VF x) {
  const DF d;
  const DI di;
  const VF magic = hn::Set(d, 12582912.0f + 127.0f);
  const VF t = hn::Add(x, magic);
  const VF f = hn::Sub(x, hn::Sub(t, magic));
  VF p;
  if constexpr (kRough) {
    p = hn::MulAdd(f, hn::Set(d, 5.500893190e-02f), hn::Set(d, 2.422109662e-01f));
    p = hn::MulAdd(p, f, hn::Set(d, 6.932829278e-01f));
  } else {
    p = hn::MulAdd(f, hn::Set(d, 1.326472722e-03f), hn::Set(d, 9.671512640e-03f));
    p = hn::MulAdd(p, f, hn::Set(d, 5.550733743e-02f));
    p = hn::MulAdd(p, f, hn::Set(d, 2.402224209e-01f));
    p = hn::MulAdd(p, f, hn::Set(d, 6.931469776e-01f));
  }
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const VF power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, t)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(p, power));
}

inline HWY_ATTR float Exp2(float x) { return hn::GetLane(Exp2(hn::Set(DF(), x))); }

// tanh to about one ulp: an odd minimax polynomial (relative error 1.5e-8) below 0.7, where
// 1 - 2 / (e^2y + 1) would cancel, and that formula above.
HWY_INLINE VF Tanh(VF y) {
  const DF d;
  const VF a = hn::Abs(y);
  const VF z = hn::Mul(y, y);
  VF q = hn::MulAdd(z, hn::Set(d, -5.155115244e-03f), hn::Set(d, 2.011166012e-02f));
  q = hn::MulAdd(q, z, hn::Set(d, -5.356698970e-02f));
  q = hn::MulAdd(q, z, hn::Set(d, 1.332924312e-01f));
  q = hn::MulAdd(q, z, hn::Set(d, -3.333319662e-01f));
  const VF small = hn::MulAdd(hn::Mul(y, z), q, y);
  const VF e = Exp2(hn::Mul(a, hn::Set(d, -2 * kLog2e)));
  const VF one = hn::Set(d, 1.0f);
  const VF large = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), y);
  return hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.7f)), small, large);
}

// sigmoid of x * ln 2, without overflow at either end: e = 2^-|x| is at most 1.
HWY_INLINE VF Sigmoid2(VF x) {
  const DF d;
  const VF one = hn::Set(d, 1.0f);
  const VF e = Exp2(hn::Neg(hn::Abs(x)));
  const VF top = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(top, hn::Add(one, e));
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
