#include "cpu/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "core/parallel.h"
#include "cpu/cpu.h"
#include "cpu/peaks_dot.h"

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
namespace regard::cpu {

HWY_EXPORT(Multiply);
HWY_EXPORT(Sum);

namespace {

constexpr int64_t kRounds = 1'000'000;  // about 3 ms of FMA
constexpr int64_t kPad = 16;            // floats a cache line

double now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(t).count();
}

// `work` returns the operations that it did; their rate, in 10^9 a second.
double rate(int threads, double (*work)(int64_t rounds, float* sink)) {
  std::vector<float> sink(size_t(threads * kPad));
  std::vector<double> done(size_t(threads * kPad));
  const double begin = now();
  parallel_for(threads, threads, [&](int64_t i, int) {
    done[size_t(i * kPad)] = work(kRounds, &sink[size_t(i * kPad)]);
  });
  return done[0] * threads / (now() - begin) / 1e9;
}

}  // namespace

Peaks::Peaks() : memory_(size_t(64) << 20, 1.0f) {}

double Peaks::fma_gflops(int threads) {
  target();  // settles the dispatch
  return rate(threads, HWY_DYNAMIC_DISPATCH(Multiply));
}

double Peaks::bf16_gflops(int threads) {
  return target() == "AVX3" && has_bf16_dot() ? rate(threads, bf16_dot) : 0;
}

double Peaks::int8_gops(int threads) {
  return target() == "AVX3" && has_int8_dot() ? rate(threads, int8_dot) : 0;
}

double Peaks::read_gbs(int threads) {
  target();
  const auto sum = HWY_DYNAMIC_DISPATCH(Sum);
  std::vector<float> sink(size_t(threads * kPad));
  // Eight pieces a thread, so that one which loses its core for a while does not stop the rest.
  const int64_t pieces = threads * 8, share = int64_t(memory_.size()) / pieces / 64 * 64;
  const double begin = now();
  parallel_for(pieces, threads, [&](int64_t i, int worker) {
    sink[size_t(worker * kPad)] += sum(memory_.data() + i * share, share);
  });
  return double(share * pieces) * 4 / (now() - begin) / 1e9;
}

PeakSummary measure_peaks(Peaks& peaks, int threads) {
  PeakSummary best{.threads = threads};
  const auto raise = [](double& x, double y) { x = std::max(x, y); };
  for (int n = 0; n < 7; ++n) {
    raise(best.fma_gflops, peaks.fma_gflops(threads));
    raise(best.bf16_gflops, peaks.bf16_gflops(threads));
    raise(best.int8_gops, peaks.int8_gops(threads));
    raise(best.read_gbs, peaks.read_gbs(threads));
  }
  return best;
}

}  // namespace regard::cpu
#endif  // HWY_ONCE
