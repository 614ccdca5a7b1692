#include "cpu/bf16.h"

#include "cpu/isa.h"
#include "cpu/items.h"

#if REGARD_DOT
#if !defined( \
    __clang__)  // GCC 12 takes its own intrinsics' undefined lanes for a mistake (PR 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

namespace regard::cpu::bf16 {
namespace {

constexpr int kLanes = 16, kPanel = 32, kPairs = kKeys / 2;
constexpr short kExponent = 0x7f80;  // of a bf16: all ones in infinities and NaN

#define REGARD_LEAF REGARD_DOT_TARGET __attribute__((always_inline)) inline
#define REGARD_UNROLL _Pragma("GCC unroll 16")

template <DType T>
using Type = std::integral_constant<DType, T>;

// Up to 16 numbers as f32, zeros past them. n may be 0 or less.
REGARD_LEAF __mmask16 First(int64_t n) {
  return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1);
}
template <class T>
REGARD_LEAF __m512 Load(T, const char* p, int64_t at, __mmask16 m = 0xffff) {
  if constexpr (T::value == DType::f32) return _mm512_maskz_loadu_ps(m, p + at * 4);
  const __m256i half = _mm256_maskz_loadu_epi16(m, p + at * 2);
  if constexpr (T::value == DType::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// bf16 of `low` in words 0..15 and of `high` in words 16..31.
REGARD_LEAF __m512i RoundBoth(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

template <class T>
REGARD_DOT_TARGET void RoundRow(T type, const char* src, int64_t n, Pair* dst) {
  int64_t c = 0;
  for (; c + 32 <= n; c += 32) {
    _mm512_store_si512(dst + c / 2, RoundBoth(Load(type, src, c), Load(type, src, c + 16)));
  }
  if (c == n) return;
  _mm512_store_si512(dst + c / 2, RoundBoth(Load(type, src, c, First(n - c)),
                                            Load(type, src, c + 16, First(n - c - 16))));
}

// Two rows of 16 columns to 16 pairs; raises `top`, the largest exponent field met.
REGARD_LEAF __m512i Zip(__m512 even, __m512 odd, __m512i* top) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i both = RoundBoth(even, odd);
  *top = _mm512_max_epu16(*top, _mm512_and_si512(both, _mm512_set1_epi16(kExponent)));
  return _mm512_permutexvar_epi16(order, both);
}

template <class T>
REGARD_DOT_TARGET bool Interleave(T type, const char* even, const char* odd, int64_t n, Pair* dst,
                                  int64_t panel_stride) {
  __m512i top = _mm512_setzero_si512();
  int64_t c = 0;
  for (; odd && c + 32 <= n; c += 32, dst += panel_stride) {
    _mm512_store_si512(dst, Zip(Load(type, even, c), Load(type, odd, c), &top));
    _mm512_store_si512(dst + 16, Zip(Load(type, even, c + 16), Load(type, odd, c + 16), &top));
  }
  for (int at = 0; c < n; c += 16, at += 16) {
    const __mmask16 m = First(n - c);
    const __m512 second = odd ? Load(type, odd, c, m) : _mm512_setzero_ps();
    _mm512_store_si512(dst + at / kPanel * panel_stride + at % kPanel,
                       Zip(Load(type, even, c, m), second, &top));
  }
  return _mm512_cmpeq_epi16_mask(top, _mm512_set1_epi16(kExponent)) == 0;
}

// acc[R][C] in registers: out[r][c] = (kAdd ? out[r][c] : 0) + sum_k a[k * AK + r * AR] . b(k, c).
template <int R, int C, int AK, int AR, bool kAdd>
REGARD_LEAF void Block(const Pair* a, const Pair* b, int64_t depth, float* out,
                       int64_t out_stride) {
  __m512 acc[R][C];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c)
      acc[r][c] = kAdd ? _mm512_load_ps(out + r * out_stride + c * kLanes) : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < depth; ++k) {
    __m512bh col[C];
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) col[c] = (__m512bh)_mm512_load_si512(b + c * kLanes);
    b += kPanel;
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512bh row = (__m512bh)_mm512_set1_epi32(int(a[r * AR]));
      REGARD_UNROLL
      for (int c = 0; c < C; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], row, col[c]);
    }
    a += AK;
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) _mm512_store_ps(out + r * out_stride + c * kLanes, acc[r][c]);
  }
}

template <int R, int AK, int AR, bool kAdd>
REGARD_DOT_TARGET void Multiply(const Pair* a, const Pair* b, int64_t panel_stride, int64_t depth,
                                int vecs, float* out, int64_t out_stride) {
  int v = 0;
  for (; v + 2 <= vecs; v += 2)
    Block<R, 2, AK, AR, kAdd>(a, b + v / 2 * panel_stride, depth, out + v * kLanes, out_stride);
  if (v < vecs)
    Block<R, 1, AK, AR, kAdd>(a, b + v / 2 * panel_stride, depth, out + v * kLanes, out_stride);
}

template <int R>
void Score(const Pair* q, const Pair* k, int64_t depth, int vecs, float* s) {
  Multiply<R, R, 1, false>(q, k, depth * kPanel, depth, vecs, s, kKeys);
}
template <int R>
void Value(const Pair* p, const Pair* v, int64_t pairs, int vecs, float* o, int64_t width) {
  Multiply<R, 1, kPairs, true>(p, v, int64_t(kPairs) * kPanel, pairs, vecs, o, width);
}

}  // namespace

void Round(DType type, const char* src, int64_t n, Pair* dst) {
  if (type == DType::f16) return RoundRow(Type<DType::f16>(), src, n, dst);
  if (type == DType::bf16) return RoundRow(Type<DType::bf16>(), src, n, dst);
  RoundRow(Type<DType::f32>(), src, n, dst);
}

bool InterleaveValues(DType type, const char* even, const char* odd, int64_t n, Pair* dst,
                      int64_t panel_stride) {
  if (type == DType::f16) return Interleave(Type<DType::f16>(), even, odd, n, dst, panel_stride);
  if (type == DType::bf16) return Interleave(Type<DType::bf16>(), even, odd, n, dst, panel_stride);
  return Interleave(Type<DType::f32>(), even, odd, n, dst, panel_stride);
}

// Panels have the row counts of PanelRows() in gemm-inl.h with 16 lanes.
#define REGARD_ROWS(F, ...)      \
  switch (rows) {                \
    case 1:                      \
      return F<1>(__VA_ARGS__);  \
    case 2:                      \
      return F<2>(__VA_ARGS__);  \
    case 3:                      \
      return F<3>(__VA_ARGS__);  \
    case 4:                      \
      return F<4>(__VA_ARGS__);  \
    case 6:                      \
      return F<6>(__VA_ARGS__);  \
    case 8:                      \
      return F<8>(__VA_ARGS__);  \
    default:                     \
      return F<12>(__VA_ARGS__); \
  }

void ScorePanel(int rows, const Pair* q, const Pair* k, int64_t depth, int vecs, float* s) {
  REGARD_ROWS(Score, q, k, depth, vecs, s)
}

void ValuePanel(int rows, const Pair* p, const Pair* v, int64_t pairs, int vecs, float* o,
                int64_t width){REGARD_ROWS(Value, p, v, pairs, vecs, o, width)}

REGARD_DOT_TARGET void RoundWeights(int rows, const float* s, int vecs, Pair* p, float* sum) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int r = 0; r < rows; ++r, s += kKeys, p += kPairs, sum += kLanes) {
    __m512 total = _mm512_load_ps(sum);
    for (int v = 0; v < vecs; v += 2) {
      const __m512 low = _mm512_load_ps(s + v * kLanes);
      const __m512 high = v + 1 < vecs ? _mm512_load_ps(s + (v + 1) * kLanes) : _mm512_setzero_ps();
      const __m512i both = RoundBoth(low, high);
      _mm512_store_si512(p + v * kLanes / 2, both);
      total = _mm512_dpbf16_ps(total, (__m512bh)both, ones);
    }
    _mm512_store_ps(sum, total);
  }
}

}  // namespace regard::cpu::bf16
#endif
