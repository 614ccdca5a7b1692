// Transposing rows of f32 by Highway vectors. Layer: core (per target).
#if defined(REGARD_CORE_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CORE_TRANSPOSE_INL_H_
#undef REGARD_CORE_TRANSPOSE_INL_H_
#else
#define REGARD_CORE_TRANSPOSE_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

#undef REGARD_UNROLL
#if HWY_COMPILER_CLANG
#define REGARD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define REGARD_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace regard {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Four columns of rows 0, 4, 8, ..., N - 4, `stride` floats apart: one 128-bit block a row.
template <size_t N>
HWY_INLINE auto LoadBlocks(const float* row, int64_t stride) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, N> d;
  if constexpr (N == 4) {
    return hn::LoadU(d, row);
  } else {
    constexpr size_t kHalf = N / 2;
    return hn::Combine(d, LoadBlocks<kHalf>(row + kHalf * stride, stride),
                       LoadBlocks<kHalf>(row, stride));
  }
}

// Four columns of as many rows as D has lanes -> `columns` (1 to 4) vectors, `to_stride` apart.
// With the rows dealt out to blocks as above, a 4 x 4 transpose inside every block leaves them in
// order.
template <class D>
HWY_INLINE void Transpose4(D d, const float* rows, int64_t stride, float* to, int64_t to_stride,
                           int columns) {
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr size_t kLanes = hn::MaxLanes(D());
  const hn::Repartition<double, D> dd;
  const auto a = LoadBlocks<kLanes>(rows, stride);
  const auto b = LoadBlocks<kLanes>(rows + stride, stride);
  const auto c = LoadBlocks<kLanes>(rows + 2 * stride, stride);
  const auto e = LoadBlocks<kLanes>(rows + 3 * stride, stride);
  const auto ab0 = hn::BitCast(dd, hn::InterleaveLower(d, a, b));
  const auto ab2 = hn::BitCast(dd, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(dd, hn::InterleaveLower(d, c, e));
  const auto ce2 = hn::BitCast(dd, hn::InterleaveUpper(d, c, e));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, ab0, ce0)), d, to);
  if (columns > 1) hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, ab0, ce0)), d, to + to_stride);
  if (columns > 2)
    hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, ab2, ce2)), d, to + 2 * to_stride);
  if (columns > 3)
    hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, ab2, ce2)), d, to + 3 * to_stride);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace regard
HWY_AFTER_NAMESPACE();
#endif
