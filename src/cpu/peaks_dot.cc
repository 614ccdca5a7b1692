#include "cpu/peaks_dot.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace regard::cpu {

bool has_bf16_dot() { return __builtin_cpu_supports("avx512bf16"); }
bool has_int8_dot() { return __builtin_cpu_supports("avx512vnni"); }

// 12 independent chains, as in peaks.cc.
__attribute__((target("avx512f,avx512bw,avx512bf16"))) double bf16_dot(int64_t rounds,
                                                                       float* sink) {
  __m512 acc[12];
  for (int j = 0; j < 12; ++j) acc[j] = _mm512_set1_ps(1e-3f * float(j + 1));
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f7e);  // 0.99
  const __m512bh b = (__m512bh)_mm512_set1_epi16(0x38d2);  // 1e-4
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], a, b);
  }
  for (int j = 1; j < 12; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  _mm512_storeu_ps(sink, acc[0]);
  return double(rounds) * 12 * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double int8_dot(int64_t rounds, float* sink) {
  __m512i acc[12];
  for (int j = 0; j < 12; ++j) acc[j] = _mm512_set1_epi32(j);
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
  }
  for (int j = 1; j < 12; ++j) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
  _mm512_storeu_si512(sink, acc[0]);
  return double(rounds) * 12 * 64 * 2;
}

}  // namespace regard::cpu

#else

namespace regard::cpu {

bool has_bf16_dot() { return false; }
bool has_int8_dot() { return false; }
double bf16_dot(int64_t, float*) { return 0; }
double int8_dot(int64_t, float*) { return 0; }

}  // namespace regard::cpu
#endif
