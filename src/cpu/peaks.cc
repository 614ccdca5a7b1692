#include "cpu/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "core/parallel.h"
#include "cpu/cpu.h"
#include "cpu/isa.h"

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/peaks.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The per-target code.
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// 12 independent chains: an FMA of latency 4 to 5 starts twice a cycle. They start apart, or the
// compiler would see one chain twelve times over. Returns FLOPs done.
HWY_NOINLINE double Multiply(int64_t rounds, float* sink) {
  const DF d;
  VF acc[12];
  REGARD_UNROLL
  for (int j = 0; j < 12; ++j) acc[j] = hn::Set(d, 1e-3f * float(j + 1));
  const VF b = hn::Set(d, 0.999f), c = hn::Set(d, 1e-4f);
  for (int64_t i = 0; i < rounds; ++i) {
    REGARD_UNROLL
    for (int j = 0; j < 12; ++j) acc[j] = hn::MulAdd(acc[j], b, c);
  }
  VF sum = acc[0];
  for (int j = 1; j < 12; ++j) sum = hn::Add(sum, acc[j]);
  *sink = hn::GetLane(sum);
  return double(rounds) * 12 * kLanes * 2;
}

HWY_NOINLINE float Sum(const float* p, int64_t n) {
  const DF d;
  VF acc[4];
  REGARD_UNROLL
  for (int j = 0; j < 4; ++j) acc[j] = hn::Zero(d);
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    REGARD_UNROLL
    for (int j = 0; j < 4; ++j) acc[j] = hn::Add(acc[j], hn::LoadU(d, p + i + j * kLanes));
  }
  return hn::GetLane(hn::Add(hn::Add(acc[0], acc[1]), hn::Add(acc[2], acc[3])));
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#if REGARD_DOT
#include <immintrin.h>
#endif

namespace regard::cpu {
#if REGARD_DOT
namespace {

// As Multiply above, for the two dot products of AVX-512: 4 and 8 operations a 32-bit lane.
REGARD_DOT_TARGET double MultiplyBf16(int64_t rounds, float* sink) {
  __m512 acc[12];
  REGARD_UNROLL
  for (int j = 0; j < 12; ++j) acc[j] = _mm512_set1_ps(1e-3f * float(j + 1));
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f7f3f7f);
  const __m512bh b = (__m512bh)_mm512_set1_epi32(0x38003800);
  for (int64_t i = 0; i < rounds; ++i) {
    REGARD_UNROLL
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], a, b);
  }
  for (int j = 1; j < 12; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  *sink = _mm512_cvtss_f32(acc[0]);
  return double(rounds) * 12 * 16 * 4;
}

REGARD_DOT_TARGET double MultiplyInt8(int64_t rounds, float* sink) {
  __m512i acc[12];
  REGARD_UNROLL
  for (int j = 0; j < 12; ++j) acc[j] = _mm512_set1_epi32(j);
  const __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x01ff01ff);
  for (int64_t i = 0; i < rounds; ++i) {
    REGARD_UNROLL
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
  }
  for (int j = 1; j < 12; ++j) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
  *sink = float(_mm512_cvtsi512_si32(acc[0]));
  return double(rounds) * 12 * 16 * 8;
}

}  // namespace
#endif

HWY_EXPORT(Multiply);
HWY_EXPORT(Sum);

Peaks measure_peaks(int threads) {
  target();  // settles the dispatch
  const auto multiply = HWY_DYNAMIC_DISPATCH(Multiply);
  const auto sum = HWY_DYNAMIC_DISPATCH(Sum);
  const auto now = [] {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(t).count();
  };
  std::vector<float> buffer(size_t(128) << 20, 1.0f), sink(size_t(threads) * 16);
  const int64_t share = int64_t(buffer.size()) / threads / 64 * 64;
  std::vector<double> flops(size_t(threads) * 8);
  const auto rate = [&](double (*f)(int64_t, float*)) {
    const double t = now();
    parallel_for(threads, threads, [&](int64_t i, int) {
      flops[size_t(i) * 8] = f(2'000'000, &sink[size_t(i) * 16]);
    });
    return flops[0] * threads / (now() - t) / 1e9;
  };
  Peaks best;
  for (int n = 0; n < 5; ++n) {
    best.gflops = std::max(best.gflops, rate(multiply));
#if REGARD_DOT
    if (numeric_refusal(Numeric::bf16).empty()) {
      best.bf16_gflops = std::max(best.bf16_gflops, rate(MultiplyBf16));
      best.int8_gops = std::max(best.int8_gops, rate(MultiplyInt8));
    }
#endif
    const double t = now();
    parallel_for(threads, threads, [&](int64_t i, int) {
      sink[size_t(i) * 16] = sum(buffer.data() + i * share, share);
    });
    best.read_gbs = std::max(best.read_gbs, double(share * threads) * 4 / (now() - t) / 1e9);
  }
  return best;
}

}  // namespace regard::cpu
#endif  // HWY_ONCE
