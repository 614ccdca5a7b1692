// The one micro-kernel: a block of R rows x C vectors of accumulators in registers, for S = Q K^T
// and O += P V alike. Layer: cpu (per target).
#if defined(REGARD_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_GEMM_INL_H_
#undef REGARD_CPU_GEMM_INL_H_
#else
#define REGARD_CPU_GEMM_INL_H_
#endif

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// out[r][c] = (kAdd ? out[r][c] : 0) + sum_k a[k * AK + r * AR] * b(k, c), where b lies in panels
// of two vectors: panel c / 2 at b + (c / 2) * panel_stride, its row k at k * kPanel.
template <int R, int C, int AK, int AR, bool kAdd>
HWY_INLINE void Block(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                      int64_t panel_stride, int64_t depth, float* HWY_RESTRICT out,
                      int64_t out_stride) {
  const DF d;
  VF acc[R][C];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) {
      acc[r][c] = kAdd ? hn::Load(d, out + r * out_stride + c * kLanes) : hn::Zero(d);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    VF col[C];
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) {
      col[c] = hn::Load(d, b + (c / 2) * panel_stride + (c % 2) * kLanes);
    }
    b += kPanel;
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const VF row = hn::Set(d, a[r * AR]);
      REGARD_UNROLL
      for (int c = 0; c < C; ++c) acc[r][c] = hn::MulAdd(row, col[c], acc[r][c]);
    }
    a += AK;
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) hn::Store(acc[r][c], d, out + r * out_stride + c * kLanes);
  }
}

// All `vecs` vectors of columns. Few rows take four vectors at once, so that there are enough
// independent accumulators to hide the latency of an FMA.
template <int R, int AK, int AR, bool kAdd>
HWY_NOINLINE void Multiply(const float* a, const float* b, int64_t panel_stride, int64_t depth,
                           int vecs, float* out, int64_t out_stride) {
  constexpr bool kWide = R * 4 <= 2 * kMaxRows;
  int v = 0;
  if constexpr (kWide) {
    for (; v + 4 <= vecs; v += 4) {
      Block<R, 4, AK, AR, kAdd>(a, b + v / 2 * panel_stride, panel_stride, depth, out + v * kLanes,
                                out_stride);
    }
  }
  for (; v + 2 <= vecs; v += 2) {
    Block<R, 2, AK, AR, kAdd>(a, b + v / 2 * panel_stride, panel_stride, depth, out + v * kLanes,
                              out_stride);
  }
  if (v < vecs) {
    Block<R, 1, AK, AR, kAdd>(a, b + v / 2 * panel_stride, panel_stride, depth, out + v * kLanes,
                              out_stride);
  }
}

// Calls f with the number of rows of a panel as a constant.
template <class F>
HWY_INLINE void WithRows(int rows, const F& f) {
  switch (rows) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
    default:
      break;
  }
  if constexpr (kMaxRows >= 6) {
    if (rows == 6) return f(std::integral_constant<int, 6>());
  }
  if constexpr (kMaxRows >= 12) {
    if (rows == 8) return f(std::integral_constant<int, 8>());
    return f(std::integral_constant<int, 12>());
  }
}

// The narrowest panel that holds `rows` rows.
inline int PanelRows(int64_t rows) {
  if (rows >= kMaxRows) return kMaxRows;
  return rows <= 4 ? int(rows) : rows <= 6 ? 6 : rows <= 8 ? 8 : 12;
}

// s[rows][kKeys] = q k^T. q: [dk][rows]; k: panels [dk][kPanel].
inline void ScorePanel(int rows, const float* q, const float* k, int64_t dk, int vecs, float* s) {
  WithRows(rows, [&](auto r) {
    constexpr int R = decltype(r)::value;
    Multiply<R, R, 1, false>(q, k, dk * kPanel, dk, vecs, s, kKeys);
  });
}

// o[rows][width] += p v. p: [rows][kKeys]; v: panels [kKeys][kPanel].
inline void ValuePanel(int rows, const float* p, const float* v, int64_t keys, int vecs, float* o,
                       int64_t width) {
  WithRows(rows, [&](auto r) {
    constexpr int R = decltype(r)::value;
    Multiply<R, 1, kKeys, true>(p, v, int64_t(kKeys) * kPanel, keys, vecs, o, width);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
