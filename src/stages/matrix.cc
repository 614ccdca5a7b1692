#include "stages/matrix.h"

#include "regard/status.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "algebra/exponential.h"
#include "core/parallel.h"

// As for the kernels: SSE4 and the Ice Lake variant of AVX-512 add nothing here but time.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stages/matrix.cc"
#include "hwy/foreach_target.h"
// Must follow foreach_target.h.
#include "core/transpose-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "stages/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::matrix::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Half>
void PromoteRow(const Half* HWY_RESTRICT src, int64_t n, float* HWY_RESTRICT dst) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) hn::StoreU(Widen(src + c), f, dst + c);
  if (c == n) return;
  Half last[kPanel] = {};
  float wide[kPanel];
  std::copy(src + c, src + n, last);
  hn::StoreU(Widen(last), f, wide);
  std::copy(wide, wide + (n - c), dst + c);
}
void PromoteF16(const void* src, int64_t n, float* dst) {
  PromoteRow(static_cast<const hwy::float16_t*>(src), n, dst);
}
void PromoteBf16(const void* src, int64_t n, float* dst) {
  PromoteRow(static_cast<const hwy::bfloat16_t*>(src), n, dst);
}

// R rows at once over `lines` lines of a panel; the accumulators are R * kVectors registers. kAdd:
// goes on from what c holds.
template <int R, bool kAdd>
HWY_INLINE void MultiplyRows(const float* HWY_RESTRICT a, int64_t depth, int64_t lines,
                             const Line* HWY_RESTRICT panel, float* HWY_RESTRICT c,
                             int64_t stride) {
  V sum[R][kVectors];
  REGARD_UNROLL
  for (int i = 0; i < R; ++i) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v)
      sum[i][v] = kAdd ? hn::LoadU(f, c + i * stride + v * kLanes) : hn::Zero(f);
  }
  for (int64_t t = 0; t < lines; ++t) {
    V key[kVectors];
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) key[v] = hn::Load(f, panel[t].x + v * kLanes);
    REGARD_UNROLL
    for (int i = 0; i < R; ++i) {
      const V query = hn::Set(f, a[i * depth + t]);
      REGARD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(query, key[v], sum[i][v]);
    }
  }
  REGARD_UNROLL
  for (int i = 0; i < R; ++i) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], f, c + i * stride + v * kLanes);
  }
}

template <bool kAdd>
void MultiplyChunk(const float* a, int64_t rows, int64_t depth, int64_t lines, const Line* panel,
                   float* c, int64_t stride) {
  // AVX-512: 8 x 2 sums, 2 keys and a query in 32 registers; AVX2: 3 x 4 sums, 4 keys, no more.
  constexpr int kRows = kVectors == 2 ? 8 : kVectors == 4 ? 3 : 1;
  constexpr int kFew = kRows == 8 ? 4 : 1;
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows)
    MultiplyRows<kRows, kAdd>(a + i * depth, depth, lines, panel, c + i * stride, stride);
  for (; i + kFew <= rows; i += kFew)
    MultiplyRows<kFew, kAdd>(a + i * depth, depth, lines, panel, c + i * stride, stride);
  for (; i < rows; ++i)
    MultiplyRows<1, kAdd>(a + i * depth, depth, lines, panel, c + i * stride, stride);
}

void Multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride) {
  // 128 lines of a panel are 16 KiB: they stay in the first cache while all rows pass.
  constexpr int64_t kChunk = 128;
  MultiplyChunk<false>(a, rows, depth, std::min(depth, kChunk), panel, c, stride);
  for (int64_t t = kChunk; t < depth; t += kChunk)
    MultiplyChunk<true>(a + t, rows, depth, std::min(depth - t, kChunk), panel + t, c, stride);
}

void PackPanel(const float* rows, int64_t count, int64_t depth, Line* panel) {
  for (int64_t v = 0; v < kVectors; ++v) {
    const int64_t first = v * kLanes, live = std::clamp<int64_t>(count - first, 0, kLanes);
    if (live == kLanes) {
      PackVectors(rows + first * depth, depth, panel, v);
      continue;
    }
    for (int64_t t = 0; t < depth; ++t) {
      float line[kLanes] = {};
      for (int64_t l = 0; l < live; ++l) line[l] = rows[(first + l) * depth + t];
      hn::Store(hn::LoadU(f, line), f, panel[t].x + first);
    }
  }
}

template <class Op>
HWY_INLINE void Map(float* x, int64_t n, const Op& op) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) hn::StoreU(op(hn::LoadU(f, x + c)), f, x + c);
  if (c == n) return;
  float last[kPanel] = {};
  std::copy(x + c, x + n, last);
  hn::StoreU(op(hn::LoadU(f, last)), f, last);
  std::copy(last, last + (n - c), x + c);
}

void ScaleCap(float* x, int64_t n, float scale, float softcap) {
  if (softcap == 0) {
    const V s = hn::Set(f, scale);
    Map(x, n, [&](V v) HWY_ATTR { return hn::Mul(v, s); });
    return;
  }
  const V s = hn::Set(f, scale / softcap), cap = hn::Set(f, softcap);
  Map(x, n, [&](V v) HWY_ATTR { return hn::Mul(hn::Tanh(f, hn::Mul(v, s)), cap); });
}

float MaxOf(const float* x, int64_t n) {
  V top = hn::Set(f, -std::numeric_limits<float>::infinity());
  int64_t c = 0;
  // Max(x, top) as a choice: a NaN compares false and is passed over.
  for (; c + kLanes <= n; c += kLanes) {
    const V v = hn::LoadU(f, x + c);
    top = hn::IfThenElse(hn::Gt(v, top), v, top);
  }
  float best = hn::GetLane(hn::MaxOfLanes(f, top));
  for (; c < n; ++c) best = x[c] > best ? x[c] : best;
  return best;
}

float ScaledMax(float* x, int64_t n, float scale) {
  const float low = -std::numeric_limits<float>::infinity();
  const V s = hn::Set(f, scale);
  V top[kVectors];
  for (V& v : top) v = hn::Set(f, low);
  int64_t c = 0;
  for (; c + kPanel <= n; c += kPanel) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V y = hn::Mul(hn::LoadU(f, x + c + v * kLanes), s);
      hn::StoreU(y, f, x + c + v * kLanes);
      top[v] = hn::IfThenElse(hn::Gt(y, top[v]), y, top[v]);  // as in MaxOf
    }
  }
  float best = low;
  for (const V& v : top) best = std::max(best, hn::GetLane(hn::MaxOfLanes(f, v)));
  for (; c < n; ++c) {
    x[c] *= scale;
    best = x[c] > best ? x[c] : best;
  }
  return best;
}

// The rest of a sum whose first `n` numbers, whole panels, are in `sum`; then the halves are added.
HWY_INLINE float FinishSum(const V* sum, const float* rest, int64_t n) {
  alignas(64) float lane[kPanel];
  for (int v = 0; v < kVectors; ++v) hn::Store(sum[v], f, lane + v * kLanes);
  for (int64_t l = 0; l < n; ++l) lane[l] += rest[l];
  return Fold<kPanel / 2>(lane);
}

float SumOf(const float* x, int64_t n) {
  V sum[kVectors];
  for (V& v : sum) v = hn::Zero(f);
  int64_t c = 0;
  for (; c + kPanel <= n; c += kPanel) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[v] = hn::Add(sum[v], hn::LoadU(f, x + c + v * kLanes));
  }
  return FinishSum(sum, x + c, n - c);
}

float Exponentials(float* x, int64_t n, float shift) {
  const V s = hn::Set(f, shift);
  V sum[kVectors];
  for (V& v : sum) v = hn::Zero(f);
  int64_t c = 0;
  for (; c + kPanel <= n; c += kPanel) {
    REGARD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V y = Exponential(hn::Sub(hn::LoadU(f, x + c + v * kLanes), s));
      hn::StoreU(y, f, x + c + v * kLanes);
      sum[v] = hn::Add(sum[v], y);
    }
  }
  Map(x + c, n - c, [&](V v) HWY_ATTR { return Exponential(hn::Sub(v, s)); });
  return FinishSum(sum, x + c, n - c);
}

// Tiles of kWidth numbers (0: `width`, or fewer at the end).
template <int kWidth>
void SubtractTops(float* x, int64_t tiles, int64_t width, float* top) {
  const float low = -std::numeric_limits<float>::infinity();
  const int64_t count = kWidth ? kWidth : width;
  for (int64_t c = 0; c < tiles; ++c, x += count) {
    float best = low;
    for (int64_t j = 0; j < count; ++j) best = x[j] > best ? x[j] : best;
    top[c] = best;
    const float shift = best == low ? 0 : best;
    for (int64_t j = 0; j < count; ++j) x[j] -= shift;
  }
}
template <int kWidth>
void SumTiles(const float* x, int64_t tiles, int64_t width, float* sum) {
  const int64_t count = kWidth ? kWidth : width;
  for (int64_t c = 0; c < tiles; ++c, x += count) {
    float total = 0;
    for (int64_t j = 0; j < count; ++j) total += x[j];
    sum[c] = total;
  }
}

void TileExponentials(float* x, int64_t n, int64_t width, float* top, float* sum) {
  const int64_t whole = n / width, rest = n - whole * width;
  // Widths known to the compiler are several times faster: blocks of 128 by strides of 16 and 8,
  // and of 64 by 16.
  const auto subtract = width == 8    ? SubtractTops<8>
                        : width == 16 ? SubtractTops<16>
                        : width == 4  ? SubtractTops<4>
                                      : SubtractTops<0>;
  const auto add = width == 8    ? SumTiles<8>
                   : width == 16 ? SumTiles<16>
                   : width == 4  ? SumTiles<4>
                                 : SumTiles<0>;
  subtract(x, whole, width, top);
  if (rest > 0) SubtractTops<0>(x + whole * width, 1, rest, top + whole);
  Map(x, n, [](V v) HWY_ATTR { return Exponential(v); });
  add(x, whole, width, sum);
  if (rest > 0) SumTiles<0>(x + whole * width, 1, rest, sum + whole);
}

void AddScaled(float* HWY_RESTRICT sum, const float* HWY_RESTRICT x, float factor, int64_t n) {
  const V s = hn::Set(f, factor);
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes)
    hn::StoreU(Fused(hn::LoadU(f, x + c), s, hn::LoadU(f, sum + c)), f, sum + c);
  for (; c < n; ++c) sum[c] = std::fma(x[c], factor, sum[c]);
}

void AddToBoth(float* HWY_RESTRICT a, float* HWY_RESTRICT b, const float* HWY_RESTRICT x,
               float factor, int64_t n) {
  const V s = hn::Set(f, factor);
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) {
    const V y = hn::Mul(hn::LoadU(f, x + c), s);
    hn::StoreU(hn::Add(hn::LoadU(f, a + c), y), f, a + c);
    hn::StoreU(hn::Add(hn::LoadU(f, b + c), y), f, b + c);
  }
  for (; c < n; ++c) {
    const float y = x[c] * factor;
    a[c] += y, b[c] += y;
  }
}

void Add(float* HWY_RESTRICT sum, const float* HWY_RESTRICT x, int64_t n) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes)
    hn::StoreU(hn::Add(hn::LoadU(f, sum + c), hn::LoadU(f, x + c)), f, sum + c);
  for (; c < n; ++c) sum[c] += x[c];
}

}  // namespace regard::matrix::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace regard::matrix {

HWY_EXPORT(PromoteF16);
HWY_EXPORT(PromoteBf16);
HWY_EXPORT(Multiply);
HWY_EXPORT(ScaleCap);
HWY_EXPORT(MaxOf);
HWY_EXPORT(ScaledMax);
HWY_EXPORT(Exponentials);
HWY_EXPORT(Add);
HWY_EXPORT(AddToBoth);
HWY_EXPORT(SumOf);
HWY_EXPORT(TileExponentials);
HWY_EXPORT(AddScaled);
HWY_EXPORT(PackPanel);

void need_host(const View& v) {
  if (v.device != Device::cpu)
    throw Error(
        "plan: this method reads queries and keys to make its plan by a stage that has no GPU "
        "kernel, and they lie in a GPU's memory; accepted: tensors in the CPU's memory");
}

void load_rows(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* dst) {
  const int64_t n = v.size[3];
  need_host(v);
  const bool dense = v.stride[3] == info(v.dtype).bytes;
  for (int64_t i = 0; i < count; ++i, dst += n) {
    const char* src = v.at(b, h, first + i);
    if (dense && v.dtype == DType::f16) {
      HWY_DYNAMIC_DISPATCH(PromoteF16)(src, n, dst);
    } else if (dense && v.dtype == DType::bf16) {
      HWY_DYNAMIC_DISPATCH(PromoteBf16)(src, n, dst);
    } else if (dense && v.dtype == DType::f32) {
      std::memcpy(dst, src, size_t(n) * sizeof(float));
    } else {
      read_row(v, b, h, first + i, dst);
    }
  }
}

void pack_panel(const float* rows, int64_t count, int64_t depth, Line* panel) {
  HWY_DYNAMIC_DISPATCH(PackPanel)(rows, count, depth, panel);
}

void multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Multiply)(a, rows, depth, panel, c, stride);
}

void scale_cap(float* x, int64_t n, float scale, float softcap) {
  HWY_DYNAMIC_DISPATCH(ScaleCap)(x, n, scale, softcap);
}

float max_of(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(MaxOf)(x, n); }

float scaled_max(float* x, int64_t n, float scale) {
  return HWY_DYNAMIC_DISPATCH(ScaledMax)(x, n, scale);
}

float exponentials(float* x, int64_t n, float shift) {
  return HWY_DYNAMIC_DISPATCH(Exponentials)(x, n, shift);
}

float sum_of(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(SumOf)(x, n); }

void tile_exponentials(float* x, int64_t n, int64_t width, float* top, float* sum) {
  HWY_DYNAMIC_DISPATCH(TileExponentials)(x, n, width, top, sum);
}

void add_scaled(float* sum, const float* x, float factor, int64_t n) {
  HWY_DYNAMIC_DISPATCH(AddScaled)(sum, x, factor, n);
}

void add(float* sum, const float* x, int64_t n) { HWY_DYNAMIC_DISPATCH(Add)(sum, x, n); }

void add_to_both(float* a, float* b, const float* x, float factor, int64_t n) {
  HWY_DYNAMIC_DISPATCH(AddToBoth)(a, b, x, factor, n);
}

Packed pack_keys(const View& k, int64_t b, int64_t h, int threads) {
  Packed out;
  out.keys = k.size[2];
  out.depth = k.size[3];
  out.lines.resize(size_t(panels(out.keys) * out.depth));
  constexpr int64_t kBatch = 8;  // panels a work item: 256 keys
  parallel_for((panels(out.keys) + kBatch - 1) / kBatch, threads, [&](int64_t item, int) {
    std::vector<float> rows(size_t(kPanel * out.depth));
    for (int64_t p = item * kBatch; p < std::min((item + 1) * kBatch, panels(out.keys)); ++p) {
      const int64_t count = std::min(kPanel, out.keys - p * kPanel);
      load_rows(k, b, h, p * kPanel, count, rows.data());
      pack_panel(rows.data(), count, out.depth, &out.lines[p * out.depth]);
    }
  });
  return out;
}

}  // namespace regard::matrix
#endif  // HWY_ONCE
