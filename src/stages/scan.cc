#include "stages/scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

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

// Numbers [j, j + kLanes) of those kept -> out, and how many. Through a register: AMD's compressing
// store to memory takes over a hundred cycles. Writes kLanes numbers where any is kept.
template <class M>
HWY_INLINE int64_t Keep(M keep, int64_t j, uint32_t* HWY_RESTRICT out) {
  const hn::ScalableTag<float> f;
  const hn::ScalableTag<uint32_t> u;
  if (hn::AllFalse(f, keep)) return 0;
  hn::StoreU(hn::Compress(hn::Iota(u, uint32_t(j)), hn::RebindMask(u, keep)), u, out);
  return int64_t(hn::CountTrue(f, keep));
}

// out: room for n and a vector; returns how many.
int64_t AtLeast(const float* HWY_RESTRICT x, int64_t n, float least, uint32_t* HWY_RESTRICT out) {
  const hn::ScalableTag<float> f;
  int64_t count = 0, j = 0;
  for (; j + kLanes <= n; j += kLanes)
    count += Keep(hn::Ge(hn::LoadU(f, x + j), hn::Set(f, least)), j, out + count);
  for (; j < n; ++j)
    if (x[j] >= least) out[count++] = uint32_t(j);
  return count;
}

// Indices from `from` on of numbers above `least`, until n or until `room` is nearly full; how far
// it came, and how many there are in *count.
int64_t Above(const float* HWY_RESTRICT x, int64_t from, int64_t n, float least, int64_t room,
              uint32_t* HWY_RESTRICT out, int64_t* count) {
  const hn::ScalableTag<float> f;
  int64_t j = from, found = 0;
  for (; j + kLanes <= n && found + kLanes <= room; j += kLanes)
    found += Keep(hn::Gt(hn::LoadU(f, x + j), hn::Set(f, least)), j, out + found);
  for (; j < n && j + kLanes > n && found < room; ++j)
    if (x[j] > least) out[found++] = uint32_t(j);
  *count = found;
  return j;
}

// Whether numbers j and on pass the cut. `tie`: none of them lies past the last equal one.
template <class D, class W>
HWY_INLINE auto Passes(D f, W x, float least, bool tie) {
  const auto limit = hn::Set(f, least);
  return tie ? hn::Ge(x, limit) : hn::Gt(x, limit);
}

bool PassesOne(float x, int64_t j, float least, int64_t last) {
  return x > least || (x == least && j <= last);
}

int64_t Append(const float* HWY_RESTRICT x, int64_t n, float least, int64_t last,
               uint32_t* HWY_RESTRICT out) {
  const hn::ScalableTag<float> f;
  int64_t count = 0, j = 0;
  const auto one = [&] {
    if (PassesOne(x[j], j, least, last)) out[count++] = uint32_t(j);
    ++j;
  };
  while (j < n) {
    // Vectors that hold the last equal number are done one by one.
    if (j + kLanes > n || (j <= last && last + 1 < j + kLanes)) {
      one();
      continue;
    }
    count += Keep(Passes(f, hn::LoadU(f, x + j), least, j <= last), j, out + count);
    j += kLanes;
  }
  return count;
}

void SetBits(const float* HWY_RESTRICT x, int64_t n, float least, int64_t last,
             uint64_t* HWY_RESTRICT words) {
  const hn::ScalableTag<float> f;
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    if (j <= last && last < j + 63) {
      for (int64_t l = 0; l < 64; ++l)
        words[j >> 6] |= uint64_t(PassesOne(x[j + l], j + l, least, last)) << l;
      continue;
    }
    for (int64_t l = 0; l < 64; l += kLanes) {
      const auto keep = Passes(f, hn::LoadU(f, x + j + l), least, j <= last);
      uint64_t bits = 0;
      hn::StoreMaskBits(f, keep, reinterpret_cast<uint8_t*>(&bits));
      words[j >> 6] |= bits << l;
    }
  }
  for (; j < n; ++j) words[j >> 6] |= uint64_t(PassesOne(x[j], j, least, last)) << (j & 63);
}

}  // namespace regard::scan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace regard::scan {

HWY_EXPORT(Sums);
HWY_EXPORT(AtLeast);
HWY_EXPORT(Above);
HWY_EXPORT(Append);
HWY_EXPORT(SetBits);

namespace {

constexpr int64_t kMostLanes = 16;
constexpr float kInf = std::numeric_limits<float>::infinity();

// The greatest number first.
uint32_t rank_of(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0f);  // -0 becomes 0: they tie
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

Cut cut_at(const float* x, uint64_t word) {
  const uint32_t j = uint32_t(word);
  return {x[j], int64_t(j)};
}

// Few of many: candidates are those above the k-th best so far.
Cut best_few(const float* x, int64_t n, int64_t k) {
  static thread_local std::vector<uint64_t> words;
  static thread_local std::vector<uint32_t> fresh;
  words.clear();
  fresh.resize(size_t(2 * k + 64));
  float least = -kInf;
  for (int64_t j = 0, count = 0; j < n;) {
    j = HWY_DYNAMIC_DISPATCH(Above)(x, j, n, least, int64_t(fresh.size()) - int64_t(words.size()),
                                    fresh.data(), &count);
    for (int64_t c = 0; c < count; ++c) words.push_back(word_of(x[fresh[c]], fresh[c]));
    if (int64_t(words.size()) <= k) continue;
    std::nth_element(words.begin(), words.begin() + (k - 1), words.end());
    words.resize(size_t(k));
    least = x[uint32_t(words.back())];
  }
  if (int64_t(words.size()) < k) return {-kInf, -1};
  return cut_at(x, *std::max_element(words.begin(), words.end()));
}

// Counted by sign, exponent and two bits of the fraction; then only one such class is sorted.
Cut best_many(const float* x, int64_t n, int64_t k) {
  constexpr int kShift = 21;
  std::array<int32_t, 1 << (32 - kShift)> counts{};
  for (int64_t j = 0; j < n; ++j)
    if (x[j] > -kInf) ++counts[rank_of(x[j]) >> kShift];
  int64_t before = 0;
  size_t of = 0;
  while (of < counts.size() && before + counts[of] < k) before += counts[of++];
  static thread_local std::vector<uint64_t> words;
  words.clear();
  for (int64_t j = 0; j < n; ++j)
    if (rank_of(x[j]) >> kShift == of && x[j] > -kInf) words.push_back(word_of(x[j], uint32_t(j)));
  const int64_t nth = k - before - 1;
  if (nth >= int64_t(words.size())) return {-kInf, -1};
  std::nth_element(words.begin(), words.begin() + nth, words.end());
  return cut_at(x, words[size_t(nth)]);
}

}  // namespace

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
  found.resize(size_t(n + kMostLanes));
  const int64_t count = HWY_DYNAMIC_DISPATCH(AtLeast)(x, n, limit, found.data());
  out->insert(out->end(), found.begin(), found.begin() + count);
}

uint64_t word_of(float x, uint32_t index) { return uint64_t(rank_of(x)) << 32 | index; }

Cut best(const float* x, int64_t n, int64_t k) {
  if (k <= 0) return {kInf, -1};
  if (k >= n) return {-kInf, -1};
  return k < n / 8 ? best_few(x, n, k) : best_many(x, n, k);
}

void append(const float* x, int64_t n, const Cut& cut, std::vector<uint32_t>* out) {
  static thread_local std::vector<uint32_t> found;
  found.resize(size_t(n + kMostLanes));
  const int64_t count = HWY_DYNAMIC_DISPATCH(Append)(x, n, cut.least, cut.last, found.data());
  out->insert(out->end(), found.begin(), found.begin() + count);
}

void set_bits(const float* x, int64_t n, const Cut& cut, uint64_t* words) {
  HWY_DYNAMIC_DISPATCH(SetBits)(x, n, cut.least, cut.last, words);
}

}  // namespace regard::scan
#endif  // HWY_ONCE
