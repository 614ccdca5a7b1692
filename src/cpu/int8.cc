#include "cpu/int8.h"

#include "cpu/isa.h"
#include "cpu/items.h"

#if REGARD_DOT
#if !defined( \
    __clang__)  // GCC 12 takes its own intrinsics' undefined lanes for a mistake (PR 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <limits>

namespace regard::cpu::int8 {
namespace {

constexpr int kLanes = 16, kPanel = 32;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLeast = 1e-30f;  // a spread below this counts as none: its inverse must be finite

#define REGARD_LEAF REGARD_DOT_TARGET __attribute__((always_inline)) inline
#define REGARD_UNROLL _Pragma("GCC unroll 16")

// Bits of |x|, which order as the numbers do, with infinity and NaN above all.
REGARD_LEAF __m512i Magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
REGARD_LEAF uint32_t Largest(__m512 a, __m512 b) {
  return _mm512_reduce_max_epu32(_mm512_max_epu32(Magnitude(a), Magnitude(b)));
}
constexpr uint32_t kInfinityBits = 0x7f800000;

REGARD_LEAF void Store(uint32_t* words, __m128i a, __m128i b) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words), a);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words + 4), b);
}

// R rows x C vectors of keys. Integer sums of one block stay in registers beside the f32 scores.
template <int R, int C>
REGARD_LEAF void Block(int rows, int row, const Queries& q, const Keys& k, int panel, int column,
                       int64_t blocks, float* s) {
  const uint32_t* a = q.levels + row;
  const uint32_t* b = k.levels + panel * blocks * kWords * kPanel + column % kPanel;
  __m512 acc[R][C];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) acc[r][c] = _mm512_set1_ps(q.shift[row + r]);
  }
  for (int64_t n = 0; n < blocks; ++n) {
    __m512i sum[R][C];
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_si512();
    }
    _Pragma("GCC unroll 2") for (int w = 0; w < kWords; ++w) {
      __m512i col[C];
      REGARD_UNROLL
      for (int c = 0; c < C; ++c) col[c] = _mm512_load_si512(b + c * kLanes);
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        const __m512i four = _mm512_set1_epi32(int(a[r]));
        REGARD_UNROLL
        for (int c = 0; c < C; ++c) sum[r][c] = _mm512_dpbusd_epi32(sum[r][c], four, col[c]);
      }
      a += rows;
      b += kPanel;
    }
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) {
      const int64_t at = n * kKeys + column + c * kLanes;
      const __m512 step = _mm512_load_ps(k.step + at), level_sum = _mm512_load_ps(k.sum + at);
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][c]), step);
        acc[r][c] = _mm512_fmadd_ps(product, _mm512_set1_ps(q.step[n * rows + row + r]), acc[r][c]);
        acc[r][c] =
            _mm512_fmadd_ps(level_sum, _mm512_set1_ps(q.low[n * rows + row + r]), acc[r][c]);
      }
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c)
      _mm512_store_ps(s + (row + r) * kKeys + column + c * kLanes, acc[r][c]);
  }
}

template <int R>
REGARD_DOT_TARGET void Rows(int rows, int row, const Queries& q, const Keys& k, int64_t blocks,
                            int vecs, float* s) {
  int v = 0;
  for (; v + 2 <= vecs; v += 2) Block<R, 2>(rows, row, q, k, v / 2, v * kLanes, blocks, s);
  if (v < vecs) Block<R, 1>(rows, row, q, k, v / 2, v * kLanes, blocks, s);
}

}  // namespace

REGARD_DOT_TARGET void QuantizeQuery(const float* row, int64_t blocks, uint32_t* levels,
                                     float* step, float* low, int64_t stride) {
  for (int64_t n = 0; n < blocks; ++n, row += kBlock, levels += kWords) {
    const __m512 a = _mm512_loadu_ps(row), b = _mm512_loadu_ps(row + kLanes);
    const float least = _mm512_reduce_min_ps(_mm512_min_ps(a, b));
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
    const float unit = most / 255 - least / 255;
    const __m512 inverse = _mm512_set1_ps(unit > kLeast ? 1 / unit : 0);
    const __m512 zero = _mm512_mul_ps(_mm512_set1_ps(least), inverse);
    step[n * stride] = unit > kLeast ? unit : 0;
    low[n * stride] = Largest(a, b) < kInfinityBits ? least : kNan;
    Store(levels, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_fmsub_ps(a, inverse, zero))),
          _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_fmsub_ps(b, inverse, zero))));
  }
}

REGARD_DOT_TARGET void QuantizeKey(const float* row, const float* mean, int64_t blocks,
                                   uint32_t* levels, float* step, int64_t stride) {
  for (int64_t n = 0; n < blocks; ++n, row += kBlock, levels += kWords) {
    __m512 a = _mm512_loadu_ps(row), b = _mm512_loadu_ps(row + kLanes);
    if (mean) {
      a = _mm512_sub_ps(a, _mm512_loadu_ps(mean + n * kBlock));
      b = _mm512_sub_ps(b, _mm512_loadu_ps(mean + n * kBlock + kLanes));
    }
    const uint32_t bits = Largest(a, b);
    const float largest = __builtin_bit_cast(float, bits);
    const __m512 inverse = _mm512_set1_ps(largest > kLeast ? 127 / largest : 0);
    step[n * stride] = bits < kInfinityBits ? largest / 127 : kNan;
    Store(levels, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse))),
          _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse))));
  }
}

REGARD_DOT_TARGET void SumLevels(const uint32_t* keys, int64_t blocks, int vecs, const float* step,
                                 float* sum) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int v = 0; v < vecs; ++v) {
    const uint32_t* panel = keys + v / 2 * blocks * kWords * kPanel + v % 2 * kLanes;
    for (int64_t n = 0; n < blocks; ++n) {
      __m512i total = _mm512_setzero_si512();
      for (int w = 0; w < kWords; ++w) {
        total =
            _mm512_dpbusd_epi32(total, ones, _mm512_load_si512(panel + (n * kWords + w) * kPanel));
      }
      const int64_t at = n * kKeys + v * kLanes;
      _mm512_store_ps(sum + at,
                      _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_load_ps(step + at)));
    }
  }
}

// Panels have the row counts of PanelRows() in gemm-inl.h with 16 lanes.
void ScorePanel(int rows, const Queries& q, const Keys& k, int64_t blocks, int vecs, float* s) {
  switch (rows) {
    case 1:
      return Rows<1>(rows, 0, q, k, blocks, vecs, s);
    case 2:
      return Rows<2>(rows, 0, q, k, blocks, vecs, s);
    case 3:
      return Rows<3>(rows, 0, q, k, blocks, vecs, s);
    case 6:
    case 12:
      for (int r = 0; r < rows; r += 6) Rows<6>(rows, r, q, k, blocks, vecs, s);
      return;
    default:
      for (int r = 0; r < rows; r += 4) Rows<4>(rows, r, q, k, blocks, vecs, s);
  }
}

}  // namespace regard::cpu::int8
#endif
