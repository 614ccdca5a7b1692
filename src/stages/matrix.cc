#include "stages/matrix.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stages/matrix.cc"
#include "hwy/foreach_target.h"
// Must follow foreach_target.h.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace regard::matrix::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, kPanel>;
using V = hn::Vec<F>;
constexpr F f;
constexpr int64_t kLanes = int64_t(hn::MaxLanes(F()));
constexpr int64_t kVectors = kPanel / kLanes;  // a panel's width in vectors

// x16: bits of f16 or bf16.
template <class Half>
void PromoteRow(const Half* HWY_RESTRICT src, int64_t n, float* HWY_RESTRICT dst) {
  const hn::Rebind<Half, F> half;
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) {
    hn::StoreU(hn::PromoteTo(f, hn::LoadU(half, src + c)), f, dst + c);
  }
  if (c == n) return;
  Half last[kPanel] = {};
  float wide[kPanel];
  std::copy(src + c, src + n, last);
  hn::StoreU(hn::PromoteTo(f, hn::LoadU(half, last)), f, wide);
  std::copy(wide, wide + (n - c), dst + c);
}
void PromoteF16(const void* src, int64_t n, float* dst) {
  PromoteRow(static_cast<const hwy::float16_t*>(src), n, dst);
}
void PromoteBf16(const void* src, int64_t n, float* dst) {
  PromoteRow(static_cast<const hwy::bfloat16_t*>(src), n, dst);
}

// R rows at once; the accumulators are R * kVectors registers.
template <int R>
HWY_INLINE void MultiplyRows(const float* HWY_RESTRICT a, int64_t depth,
                             const Line* HWY_RESTRICT panel, float* HWY_RESTRICT c,
                             int64_t stride) {
  V sum[R][kVectors];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(f);
  for (int64_t t = 0; t < depth; ++t) {
    V key[kVectors];
    for (int v = 0; v < kVectors; ++v) key[v] = hn::Load(f, panel[t].x + v * kLanes);
    for (int i = 0; i < R; ++i) {
      const V query = hn::Set(f, a[i * depth + t]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(query, key[v], sum[i][v]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], f, c + i * stride + v * kLanes);
}

void Multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride) {
  // Eight vectors of sums hide the latency of a fused multiply-add; two a row fit 16 registers.
  constexpr int kRows = kVectors == 1 ? 8 : kVectors == 2 ? 4 : 2;
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows)
    MultiplyRows<kRows>(a + i * depth, depth, panel, c + i * stride, stride);
  for (; i < rows; ++i) MultiplyRows<1>(a + i * depth, depth, panel, c + i * stride, stride);
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

void Exponentials(float* x, int64_t n, float shift) {
  const V s = hn::Set(f, shift);
  Map(x, n, [&](V v) HWY_ATTR {
    const V d = hn::Sub(v, s);
    return hn::IfThenElse(hn::IsNaN(d), d, hn::Exp(f, d));
  });
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
HWY_EXPORT(Exponentials);

void load_rows(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* dst) {
  const int64_t n = v.size[3];
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
  // Sixteen channels at a time: sixteen source lines and sixteen target lines stay in cache.
  for (int64_t t0 = 0; t0 < depth; t0 += kPanel) {
    const int64_t t1 = std::min(depth, t0 + kPanel);
    for (int64_t l = 0; l < count; ++l)
      for (int64_t t = t0; t < t1; ++t) panel[t].x[l] = rows[l * depth + t];
    if (count == kPanel) continue;
    // Not a loop over keys and channels: GCC 12 turns that one inside out and then stores to
    // panel[t].x + count as if it were aligned.
    for (int64_t t = t0; t < t1; ++t) std::fill(panel[t].x + count, panel[t].x + kPanel, 0.0f);
  }
}

void multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Multiply)(a, rows, depth, panel, c, stride);
}

void scale_cap(float* x, int64_t n, float scale, float softcap) {
  HWY_DYNAMIC_DISPATCH(ScaleCap)(x, n, scale, softcap);
}

float max_of(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(MaxOf)(x, n); }

float exponentials(float* x, int64_t n, float shift) {
  HWY_DYNAMIC_DISPATCH(Exponentials)(x, n, shift);
  float lane[kPanel] = {};
  int64_t i = 0;
  for (; i + kPanel <= n; i += kPanel)
    for (int64_t l = 0; l < kPanel; ++l) lane[l] += x[i + l];
  for (int64_t l = 0; i < n; ++i, ++l) lane[l] += x[i];
  float sum = 0;
  for (float s : lane) sum += s;
  return sum;
}

Packed pack_keys(const View& k, int64_t b, int64_t h, int threads) {
  Packed out;
  out.keys = k.size[2];
  out.depth = k.size[3];
  out.lines.resize(size_t(panels(out.keys) * out.depth));
  constexpr int64_t kBatch = 16;  // panels a work item: 256 keys
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
