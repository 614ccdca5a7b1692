#include "stages/scan.h"

#include <algorithm>
#include <cmath>

// The targets of matrix.cc.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stages/scan.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace regard::scan::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kLanes = HWY_LANES(float);

// Sums of x - shift and of its square over finite numbers, in two halves of a vector of doubles.
Moments Sums(const float* HWY_RESTRICT x, int64_t n, double shift) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> f;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto count = hn::Zero(d), sum = count, squares = count;
  const auto add = [&](auto v) HWY_ATTR {
    const auto finite = hn::Eq(hn::Sub(v, v), hn::Zero(d));
    const auto y = hn::IfThenElseZero(finite, hn::Sub(v, hn::Set(d, shift)));
    count = hn::Add(count, hn::IfThenElseZero(finite, hn::Set(d, 1.0)));
    sum = hn::Add(sum, y);
    squares = hn::MulAdd(y, y, squares);
  };
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) add(hn::PromoteTo(d, hn::LoadU(f, x + j)));
  for (; j < n; ++j) {
    float last[kLanes];
    std::fill(last, last + kLanes, HUGE_VALF);
    last[0] = x[j];
    add(hn::PromoteTo(d, hn::LoadU(f, last)));
  }
  return {hn::GetLane(hn::SumOfLanes(d, count)), hn::GetLane(hn::SumOfLanes(d, sum)),
          hn::GetLane(hn::SumOfLanes(d, squares))};
}

// out: room for n; returns how many.
int64_t AtLeast(const float* HWY_RESTRICT x, int64_t n, float least, uint32_t* HWY_RESTRICT out) {
  const hn::ScalableTag<float> f;
  const hn::ScalableTag<uint32_t> u;
  int64_t count = 0, j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const auto keep = hn::Ge(hn::LoadU(f, x + j), hn::Set(f, least));
    count += int64_t(hn::CompressBlendedStore(hn::Iota(u, uint32_t(j)), hn::RebindMask(u, keep), u,
                                              out + count));
  }
  for (; j < n; ++j)
    if (x[j] >= least) out[count++] = uint32_t(j);
  return count;
}

}  // namespace regard::scan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace regard::scan {

HWY_EXPORT(Sums);
HWY_EXPORT(AtLeast);

Moments moments(const float* x, int64_t n) {
  Moments m = HWY_DYNAMIC_DISPATCH(Sums)(x, n, 0.0);
  if (m.count == 0) return {};
  const double mean = m.mean / m.count;
  m = HWY_DYNAMIC_DISPATCH(Sums)(x, n, mean);
  return {m.count, mean, std::sqrt(m.deviation / m.count)};
}

void at_least(const float* x, int64_t n, double least, std::vector<uint32_t>* out) {
  // The least float that is `least` or more: the same numbers pass.
  float limit = float(least);
  if (double(limit) < least) limit = std::nextafter(limit, HUGE_VALF);
  static thread_local std::vector<uint32_t> found;
  found.resize(size_t(n));
  const int64_t count = HWY_DYNAMIC_DISPATCH(AtLeast)(x, n, limit, found.data());
  out->insert(out->end(), found.begin(), found.begin() + count);
}

}  // namespace regard::scan
#endif  // HWY_ONCE
