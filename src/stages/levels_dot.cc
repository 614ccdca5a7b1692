#include "stages/levels_dot.h"

#if defined(__x86_64__) && defined(__GNUC__)
#if !defined( \
    __clang__)  // GCC 12 takes its own intrinsics' undefined lanes for a mistake (PR 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define REGARD_LEVELS_DOT __attribute__((target("avx512f,avx512bw,avx512vnni")))

namespace regard::matrix {
namespace {

// R rows: 2 R sums, two vectors of keys and a query in 32 registers.
template <int R>
REGARD_LEVELS_DOT inline void rows_dot(const float* a, const float* a_scale, int64_t pairs,
                                       const Line* panel, const Line& k_scale, float* c,
                                       int64_t stride) {
  __m512i sum[R][2];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
  for (int64_t t = 0; t < pairs; ++t) {
    const __m512i low = _mm512_load_si512(panel[t].x), high = _mm512_load_si512(panel[t].x + 16);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const __m512i query = _mm512_castps_si512(_mm512_set1_ps(a[i * pairs + t]));
      sum[i][0] = _mm512_dpwssd_epi32(sum[i][0], query, low);
      sum[i][1] = _mm512_dpwssd_epi32(sum[i][1], query, high);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* const to = c + i * stride + v * 16;
      const __m512 scale =
          _mm512_mul_ps(_mm512_set1_ps(a_scale[i]), _mm512_load_ps(k_scale.x + v * 16));
      const __m512 x = _mm512_cvtepi32_ps(sum[i][v]);
      _mm512_storeu_ps(to, _mm512_fmadd_ps(x, scale, _mm512_loadu_ps(to)));
    }
  }
}

}  // namespace

bool has_levels_dot() {
  static const bool has =
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
  return has;
}

REGARD_LEVELS_DOT void multiply_levels_dot(const float* a, const float* a_scale, int64_t rows,
                                           int64_t pairs, const Line* panel, const Line& k_scale,
                                           float* c, int64_t stride) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8)
    rows_dot<8>(a + i * pairs, a_scale + i, pairs, panel, k_scale, c + i * stride, stride);
  for (; i < rows; ++i)
    rows_dot<1>(a + i * pairs, a_scale + i, pairs, panel, k_scale, c + i * stride, stride);
}

}  // namespace regard::matrix

#else

namespace regard::matrix {

bool has_levels_dot() { return false; }
void multiply_levels_dot(const float*, const float*, int64_t, int64_t, const Line*, const Line&,
                         float*, int64_t) {}

}  // namespace regard::matrix
#endif
