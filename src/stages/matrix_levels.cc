// Rows as levels (levels.h) and the products of them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "stages/levels.h"
#include "stages/levels_dot.h"
#include "stages/matrix.h"

// As for the kernels: SSE4 and the Ice Lake variant of AVX-512 add nothing here but time.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stages/matrix_levels.cc"
#include "hwy/foreach_target.h"
// Must follow foreach_target.h.
#include "hwy/highway.h"
#include "stages/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::matrix::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using I = hn::RebindToSigned<F>;
constexpr I i32;

HWY_INLINE hn::Vec<I> LoadPairs(const float* pairs) { return hn::BitCast(i32, hn::Load(f, pairs)); }

// sum + the products of both halves of every lane, signed.
HWY_INLINE hn::Vec<I> AddPairs(hn::Vec<I> sum, hn::Vec<I> a, hn::Vec<I> b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  const hn::Repartition<int16_t, I> i16;  // vpmaddwd adds neighbours
  return hn::ReorderWidenMulAccumulate(i32, hn::BitCast(i16, a), hn::BitCast(i16, b), sum, sum);
#else
  const auto low = [](auto x) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(x)); };
  const auto high = [](auto x) HWY_ATTR { return hn::ShiftRight<16>(x); };
  return hn::Add(sum, hn::Add(hn::Mul(low(a), low(b)), hn::Mul(high(a), high(b))));
#endif
}

// The channels of one token, whose sums are integers; then scaled and added.
template <int R>
HWY_INLINE void MultiplyLevels(const float* HWY_RESTRICT a, int64_t pairs,
                               const Line* HWY_RESTRICT panel, const float* HWY_RESTRICT a_scale,
                               const Line& k_scale, float* HWY_RESTRICT c, int64_t stride) {
  hn::Vec<I> sum[R][kVectors];
  REGARD_UNROLL
  for (int i = 0; i < R; ++i) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(i32);
  }
  for (int64_t t = 0; t < pairs; ++t) {
    hn::Vec<I> key[kVectors];
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) key[v] = LoadPairs(panel[t].x + v * kLanes);
    REGARD_UNROLL
    for (int i = 0; i < R; ++i) {
      const hn::Vec<I> query = hn::BitCast(i32, hn::Set(f, a[i * pairs + t]));
      REGARD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] = AddPairs(sum[i][v], query, key[v]);
    }
  }
  REGARD_UNROLL
  for (int i = 0; i < R; ++i) {
    const V query = hn::Set(f, a_scale[i]);
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V scale = hn::Mul(query, hn::Load(f, k_scale.x + v * kLanes));
      float* const to = c + i * stride + v * kLanes;
      hn::StoreU(Fused(hn::ConvertTo(f, sum[i][v]), scale, hn::LoadU(f, to)), f, to);
    }
  }
}

void MultiplyTokens(const float* a, const float* a_scale, int64_t rows, int64_t tokens,
                    int64_t pairs, const Line* panel, const Line* k_scale, float* c,
                    int64_t stride) {
  constexpr int kRows = kVectors == 2 ? 8 : kVectors == 4 ? 3 : 1;
  const bool dot = kLanes == 16 && has_levels_dot();
  for (int64_t i = 0; i < rows; ++i) std::fill_n(c + i * stride, kPanel, 0.0f);
  for (int64_t t = 0; t < tokens; ++t, a += rows * pairs, a_scale += rows, panel += pairs) {
    if (dot) {
      multiply_levels_dot(a, a_scale, rows, pairs, panel, k_scale[t], c, stride);
      continue;
    }
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows)
      MultiplyLevels<kRows>(a + i * pairs, pairs, panel, a_scale + i, k_scale[t], c + i * stride,
                            stride);
    for (; i < rows; ++i)
      MultiplyLevels<1>(a + i * pairs, pairs, panel, a_scale + i, k_scale[t], c + i * stride,
                        stride);
  }
}

// Thirty-two channels of a row: kVectors vectors.
struct Channels {
  V x[kVectors];
};
template <class T>
HWY_INLINE Channels LoadChannels(const T* HWY_RESTRICT row) {
  Channels out;
  REGARD_UNROLL
  for (int v = 0; v < kVectors; ++v) out.x[v] = Widen(row + v * kLanes);
  return out;
}

// to(Channels) for every thirty-two channels of a row, zeros beyond its end.
template <class T, class To>
HWY_INLINE void EachChannels(const T* HWY_RESTRICT row, int64_t n, const To& to) {
  int64_t c = 0;
  for (; c + kPanel <= n; c += kPanel) to(LoadChannels(row + c));
  if (c == n) return;
  T last[kPanel] = {};
  std::memcpy(last, row + c, size_t(n - c) * sizeof(T));
  to(LoadChannels(last));
}

// What sum_of would add up of the squares, fused: all but the last log2(kLanes) foldings.
template <class T>
HWY_INLINE V SumSquares(const T* HWY_RESTRICT row, int64_t n) {
  V sum[kVectors];
  for (V& v : sum) v = hn::Zero(f);
  EachChannels(row, n, [&](const Channels& c) HWY_ATTR {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[v] = Fused(c.x[v], c.x[v], sum[v]);
  });
  REGARD_UNROLL
  for (int half = kVectors / 2; half > 0; half /= 2) {
    REGARD_UNROLL
    for (int v = 0; v < half; ++v) sum[v] = hn::Add(sum[v], sum[v + half]);
  }
  return sum[0];
}

// The levels of a row, two by two: channels c and c + kPanel / 2 of every thirty-two.
template <class T>
HWY_INLINE void StoreLevels(const T* HWY_RESTRICT row, int64_t n, V inverse,
                            float* HWY_RESTRICT pairs) {
  // Added to one of these, a number below 2^22 is rounded to the whole number in its lower bits.
  const V ones = hn::Set(f, 12582912.0f);  // 1.5 * 2^23
  const V exact = hn::Set(f, levels::kExact + 0.5f);
  const auto one = hn::Set(i32, 1);
  const auto level = [&](V x) HWY_ATTR {
    const V y = hn::Mul(x, inverse);
    const auto whole = hn::BitCast(i32, hn::Add(y, ones));
    // Half of an odd level rounds to even: 2049 -> 2048, 2051 -> 2052.
    const auto up = hn::Add(whole, hn::And(hn::ShiftRight<1>(whole), one));
    const auto large = hn::RebindMask(i32, hn::Gt(hn::Abs(y), exact));
    return hn::IfThenElse(large, hn::AndNot(one, up), whole);
  };
  const auto low = hn::Set(i32, 0xffff);
  EachChannels(row, n, [&](const Channels& c) HWY_ATTR {
    constexpr int kHalf = int(kVectors) / 2;
    REGARD_UNROLL
    for (int v = 0; v < kHalf; ++v) {
      const auto high = hn::ShiftLeft<16>(level(c.x[v + kHalf]));
      hn::StoreU(hn::BitCast(f, hn::Or(hn::And(level(c.x[v]), low), high)), f, pairs + v * kLanes);
    }
    pairs += kPanel / 2;
  });
}

template <class T>
void RowsToLevels(const char* HWY_RESTRICT src, int64_t src_step, int64_t count, int64_t n,
                  float* HWY_RESTRICT pairs, int64_t step, float* HWY_RESTRICT scale,
                  int64_t scale_step) {
  const auto row = [&](int64_t r) { return reinterpret_cast<const T*>(src + r * src_step); };
  // As many rows as a vector has lanes have their lengths, roots and quotients made side by side.
  for (int64_t first = 0; first < count; first += kLanes) {
    const int64_t rows = std::min(count - first, kLanes);
    alignas(64) float sums[kLanes * kLanes], inverse[kLanes], unit[kLanes];
    Line lane[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      hn::Store(r < rows ? SumSquares(row(first + r), n) : hn::Zero(f), f, sums + r * kLanes);
      // Rows of a head may lie apart: no prefetcher of the machine sees the next ones coming.
      for (int64_t c = 0; c < n; c += 64 / int64_t(sizeof(T)))
        __builtin_prefetch(row(first + r + kLanes) + c);
    }
    PackVectors(sums, kLanes, lane, 0);
    for (int64_t half = kLanes / 2; half > 0; half /= 2)
      for (int64_t l = 0; l < half; ++l)
        hn::Store(hn::Add(hn::Load(f, lane[l].x), hn::Load(f, lane[l + half].x)), f, lane[l].x);
    const V square = hn::Load(f, lane[0].x), length = hn::Sqrt(square);
    const V most = hn::Set(f, levels::kLength), nan = hn::Set(f, std::nanf(""));
    const auto fits = hn::And(hn::Ge(square, hn::Set(f, levels::kLeastSquare)),
                              hn::Le(square, hn::Set(f, levels::kMostSquare)));
    const auto none = hn::Lt(square, hn::Set(f, levels::kLeastSquare));
    hn::Store(hn::IfThenElseZero(fits, hn::Div(most, length)), f, inverse);
    hn::Store(hn::IfThenElse(fits, hn::Div(length, most), hn::IfThenZeroElse(none, nan)), f, unit);
    for (int64_t r = 0; r < rows; ++r) {
      float* const to = pairs + (first + r) * step;
      scale[(first + r) * scale_step] = unit[r];
      if (inverse[r] > 0) {
        StoreLevels(row(first + r), n, hn::Set(f, inverse[r]), to);
      } else {
        std::fill_n(to, level_pairs(n), 0.0f);
      }
    }
  }
}
void ToLevels(DType type, const char* src, int64_t src_step, int64_t count, int64_t n, float* pairs,
              int64_t step, float* scale, int64_t scale_step) {
  const auto rows = type == DType::f32   ? RowsToLevels<float>
                    : type == DType::f16 ? RowsToLevels<hwy::float16_t>
                                         : RowsToLevels<hwy::bfloat16_t>;
  rows(src, src_step, count, n, pairs, step, scale, scale_step);
}

}  // namespace regard::matrix::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace regard::matrix {

HWY_EXPORT(ToLevels);
HWY_EXPORT(MultiplyTokens);

void load_levels(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* pairs,
                 int64_t step, float* scale, int64_t scale_step) {
  const int64_t n = v.size[3];
  need_host(v);
  const bool half = v.dtype == DType::f16 || v.dtype == DType::bf16;
  if ((half || v.dtype == DType::f32) && v.stride[3] == info(v.dtype).bytes) {
    HWY_DYNAMIC_DISPATCH(ToLevels)
    (v.dtype, v.at(b, h, first), v.stride[2], count, n, pairs, step, scale, scale_step);
    return;
  }
  std::vector<float> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < count; ++i) {
    read_row(v, b, h, first + i, row.data());
    HWY_DYNAMIC_DISPATCH(ToLevels)
    (DType::f32, reinterpret_cast<const char*>(row.data()), 0, 1, n, pairs + i * step, step,
     scale + i * scale_step, scale_step);
  }
}

void multiply_levels(const float* a, const float* a_scale, int64_t rows, int64_t tokens,
                     int64_t pairs, const Line* panel, const Line* k_scale, float* c,
                     int64_t stride) {
  HWY_DYNAMIC_DISPATCH(MultiplyTokens)
  (a, a_scale, rows, tokens, pairs, panel, k_scale, c, stride);
}

}  // namespace regard::matrix
#endif  // HWY_ONCE
