#include "stages/tile_sums.h"

#include <algorithm>

#include "stages/rows.h"

// The targets of matrix.cc.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stages/tile_sums.cc"
#include "hwy/foreach_target.h"
// Must follow foreach_target.h.
#include "hwy/highway.h"
#include "stages/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::matrix::HWY_NAMESPACE {

// Number `at + lane` of x[0, n), times scale; -inf past the end. x holds whole panels.
HWY_INLINE V Logits(const float* x, int64_t at, int64_t n, V scale) {
  const V y = hn::Mul(hn::LoadU(f, x + at), scale);
  if (at + kLanes <= n) return y;
  const auto inside = hn::FirstN(f, size_t(std::max<int64_t>(n - at, 0)));
  return hn::IfThenElse(inside, y, hn::Set(f, -std::numeric_limits<float>::infinity()));
}

HWY_INLINE float FoldVectors(const V* sum) {
  alignas(64) float lane[kPanel];
  for (int v = 0; v < kVectors; ++v) hn::Store(sum[v], f, lane + v * kLanes);
  return Fold<kPanel / 2>(lane);
}

// bits: of x, where only those are to be added to *kept.
template <bool kBits>
HWY_INLINE void SoftSum(const float* HWY_RESTRICT x, int64_t n, float factor, float* top,
                        float* sum, uint64_t bits, float* kept) {
  const V scale = hn::Set(f, factor);
  const float low = -std::numeric_limits<float>::infinity();
  V most = hn::Set(f, low);
  for (int64_t c = 0; c < n; c += kLanes) {
    const V y = Logits(x, c, n, scale);
    most = hn::IfThenElse(hn::Gt(y, most), y, most);
  }
  const float best = hn::GetLane(hn::MaxOfLanes(f, most));
  const V shift = hn::Set(f, best == low ? 0 : best);
  V all[kVectors], some[kVectors];
  for (int v = 0; v < kVectors; ++v) all[v] = some[v] = hn::Zero(f);
  for (int64_t c = 0; c < n; c += kPanel) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = c + v * kLanes;
      const V y = Exponential(hn::Sub(Logits(x, at, n, scale), shift));
      all[v] = hn::Add(all[v], y);
      if (!kBits) continue;
      const uint64_t own = bits >> at;
      const auto in = hn::LoadMaskBits(f, reinterpret_cast<const uint8_t*>(&own));
      some[v] = hn::Add(some[v], hn::IfThenElseZero(in, y));
    }
  }
  *top = best, *sum = FoldVectors(all);
  if (kBits) *kept = FoldVectors(some);
}

void SoftSums(const float* x, int64_t n, float factor, float* top, float* sum) {
  SoftSum<false>(x, n, factor, top, sum, 0, nullptr);
}
void SoftSumsOf(const float* x, int64_t n, float factor, float* top, float* sum, uint64_t bits,
                float* kept) {
  SoftSum<true>(x, n, factor, top, sum, bits, kept);
}

}  // namespace regard::matrix::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace regard {
namespace matrix {
HWY_EXPORT(SoftSums);
HWY_EXPORT(SoftSumsOf);
}  // namespace matrix

bool TileSums::takes(const Inputs& x, int64_t width) {
  const Score& s = x.score;
  return width % matrix::kPanel == 0 && x.norm.kind != NormKind::sigmoid && s.alibi.empty() &&
         !s.bias.view && !s.key_bias.view;
}

TileSums::TileSums(const Inputs& x, int64_t width)
    : x_(x), width_(width), tiles_((x.problem.nk + width - 1) / width) {
  need_one_sequence(x.problem, "attention by tiles");
}

void TileSums::run(const matrix::Packed& keys, int64_t b, int64_t h, int64_t first, int64_t count,
                   float* top, float* sum, const uint64_t* pairs, float* kept) const {
  const Problem& p = x_.problem;
  static thread_local std::vector<float> q, logits;
  q.resize(size_t(count * p.dk)), logits.resize(size_t(count * width_));
  matrix::load_rows(x_.q, b, h, first, count, q.data());
  for (int64_t c = 0; c < tiles_; ++c) {
    const int64_t begin = c * width_, end = std::min(begin + width_, p.nk);
    const auto seen = [&](int64_t i) {
      return std::clamp(x_.causal ? first + i + p.offset + 1 : p.nk, begin, end) - begin;
    };
    if (seen(count - 1) > 0)  // the last query sees the most
      for (int64_t j = begin; j < end; j += matrix::kPanel)
        matrix::multiply(q.data(), count, p.dk, keys.panel(j / matrix::kPanel), &logits[j - begin],
                         width_);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = seen(i), at = i * tiles_ + c;
      float* const x = &logits[i * width_];
      float factor = p.scale;
      if (x_.score.softcap != 0) matrix::scale_cap(x, n, p.scale, x_.score.softcap), factor = 1;
      const uint64_t bits = pairs ? pairs[at] : 0, all = n == 64 ? ~0ull : (1ull << (n & 63)) - 1;
      if ((bits & all) == 0 || (bits & all) == all) {
        HWY_DYNAMIC_DISPATCH(matrix::SoftSums)(x, n, factor, &top[at], &sum[at]);
        if (pairs) kept[at] = bits & all ? sum[at] : 0;
      } else {
        HWY_DYNAMIC_DISPATCH(matrix::SoftSumsOf)(x, n, factor, &top[at], &sum[at], bits, &kept[at]);
      }
    }
  }
}

}  // namespace regard
#endif  // HWY_ONCE
