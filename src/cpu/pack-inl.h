// Packing: a tile of keys transposed, a tile of values by column panels, the query rows with the
// scale folded in. Done once per row tile, not once per row. Layer: cpu (per target).
#if defined(REGARD_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_PACK_INL_H_
#undef REGARD_CPU_PACK_INL_H_
#else
#define REGARD_CPU_PACK_INL_H_
#endif

#include "cpu/decode-inl.h"
#include "cpu/panel.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Four dims of keys i, 4 + i, 8 + i, ...: one 128-bit block a key.
template <size_t kLanesOfD>
HWY_INLINE auto LoadBlocks(const float* row, int64_t stride) {
  const hn::CappedTag<float, kLanesOfD> d;
  if constexpr (kLanesOfD == 4) {
    return hn::Load(d, row);
  } else {
    constexpr size_t kHalf = kLanesOfD / 2;
    return hn::Combine(d, LoadBlocks<kHalf>(row + kHalf * stride, stride),
                       LoadBlocks<kHalf>(row, stride));
  }
}

// Four dims of kLanes keys, as lanes of `dims` vectors kPanel apart: with the keys dealt out to
// blocks as above, a 4 x 4 transpose inside every block leaves them in order.
HWY_INLINE void Transpose4(const float* rows, int64_t stride, float* dst, int dims) {
  const DF d;
  const hn::Repartition<double, DF> dd;
  const VF a = LoadBlocks<kLanes>(rows, stride);
  const VF b = LoadBlocks<kLanes>(rows + stride, stride);
  const VF c = LoadBlocks<kLanes>(rows + 2 * stride, stride);
  const VF e = LoadBlocks<kLanes>(rows + 3 * stride, stride);
  const auto ab0 = hn::BitCast(dd, hn::InterleaveLower(d, a, b));
  const auto ab2 = hn::BitCast(dd, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(dd, hn::InterleaveLower(d, c, e));
  const auto ce2 = hn::BitCast(dd, hn::InterleaveUpper(d, c, e));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, ab0, ce0)), d, dst);
  if (dims > 1) hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, ab0, ce0)), d, dst + kPanel);
  if (dims > 2) hn::Store(hn::BitCast(d, hn::InterleaveLower(dd, ab2, ce2)), d, dst + 2 * kPanel);
  if (dims > 3) hn::Store(hn::BitCast(d, hn::InterleaveUpper(dd, ab2, ce2)), d, dst + 3 * kPanel);
}
#endif

#if HWY_TARGET != HWY_SCALAR
// x[i] = lane i of each, for vectors of as many lanes: 4 x 4 inside 128-bit blocks, then the
// blocks.
HWY_INLINE void TransposeSquare(VF (&x)[kLanes]) {
  const DF d;
  const hn::Repartition<double, DF> dd;
  REGARD_UNROLL
  for (int q = 0; q < kLanes; q += 4) {
    const auto ab0 = hn::BitCast(dd, hn::InterleaveLower(d, x[q], x[q + 1]));
    const auto ab2 = hn::BitCast(dd, hn::InterleaveUpper(d, x[q], x[q + 1]));
    const auto ce0 = hn::BitCast(dd, hn::InterleaveLower(d, x[q + 2], x[q + 3]));
    const auto ce2 = hn::BitCast(dd, hn::InterleaveUpper(d, x[q + 2], x[q + 3]));
    x[q] = hn::BitCast(d, hn::InterleaveLower(dd, ab0, ce0));
    x[q + 1] = hn::BitCast(d, hn::InterleaveUpper(dd, ab0, ce0));
    x[q + 2] = hn::BitCast(d, hn::InterleaveLower(dd, ab2, ce2));
    x[q + 3] = hn::BitCast(d, hn::InterleaveUpper(dd, ab2, ce2));
  }
  // Block n of x[4 q + c] goes to block q of x[4 n + c].
  REGARD_UNROLL
  for (int c = 0; c < 4; ++c) {
#if HWY_MAX_BYTES == 64
    const VF a = x[c], b = x[4 + c], e = x[8 + c], f = x[12 + c];
    const VF ae0 = hn::ConcatLowerLower(d, e, a), ae2 = hn::ConcatUpperUpper(d, e, a);
    const VF bf0 = hn::ConcatLowerLower(d, f, b), bf2 = hn::ConcatUpperUpper(d, f, b);
    x[c] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(bf0), ae0);
    x[4 + c] = hn::OddEvenBlocks(bf0, hn::SwapAdjacentBlocks(ae0));
    x[8 + c] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(bf2), ae2);
    x[12 + c] = hn::OddEvenBlocks(bf2, hn::SwapAdjacentBlocks(ae2));
#elif HWY_MAX_BYTES == 32
    const VF a = x[c], b = x[4 + c];
    x[c] = hn::ConcatLowerLower(d, b, a);
    x[4 + c] = hn::ConcatUpperUpper(d, b, a);
#endif
  }
}

// PackKeys below for plain rows of whole vectors: transposed on the way from memory, in registers.
template <DType T>
HWY_NOINLINE void PackPlainKeys(const char* first, int64_t stride, const KeyTile& tile, int64_t dk,
                                float* dst) {
  const std::integral_constant<DType, T> type;
  constexpr int64_t kStep = kLanes * (T == DType::f32 ? 4 : 2);
  for (int g = 0; g * kLanes < tile.n; ++g) {
    float* to = dst + (g / 2) * dk * kPanel + (g % 2) * kLanes;
    const char* row[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      row[j] = first + tile.id[std::min(g * kLanes + j, tile.n - 1)] * stride;
    }
    for (int64_t c = 0; c < dk / kLanes; ++c) {
      VF x[kLanes];
      REGARD_UNROLL
      for (int j = 0; j < kLanes; ++j) x[j] = Widen(row[j] + c * kStep, type);
      TransposeSquare(x);
      REGARD_UNROLL
      for (int j = 0; j < kLanes; ++j, to += kPanel) hn::Store(x[j], DF(), to);
    }
  }
}
#endif

// dst: panels [words][kPanel] of keys, a key's row being `words` 32-bit words: numbers, or pairs or
// quads of smaller ones (nothing here looks inside). read(j, row) fetches the tile's key j, whole
// vectors of it. Columns past tile.n hold what was there before: the scores they make are masked.
// rows: [kLanes][words rounded up to 32]; a vector's worth of keys is read before any is read back,
// since a load right behind its store would wait for it.
template <class F>
HWY_INLINE void PackKeys(const KeyTile& tile, int64_t words, const F& read, float* rows,
                         float* dst) {
  const int64_t stride = round_up(words, 32);
  for (int g = 0; g * kLanes < tile.n; ++g) {
    float* panel = dst + (g / 2) * words * kPanel + (g % 2) * kLanes;
    const int keys = std::min(kLanes, tile.n - g * kLanes);
    for (int j = 0; j < keys; ++j) read(g * kLanes + j, rows + j * stride);
#if HWY_TARGET == HWY_SCALAR
    for (int64_t c = 0; c < words; ++c) panel[c * kPanel] = rows[c];
#else
    for (int64_t c = 0; c < words; c += 4) {
      Transpose4(rows + c, stride, panel + c * kPanel, int(std::min<int64_t>(4, words - c)));
    }
#endif
  }
}

// Copies vectors into the panels of one value row and remembers whether any element was not finite:
// 0 * x is 0 or NaN.
class ValueRow {
 public:
  HWY_ATTR ValueRow() : even_(hn::Zero(DF())), odd_(hn::Zero(DF())) {}
  HWY_INLINE void Put(VF x, int c, float* to) {
    const DF d;
    VF& poison = c % 2 ? odd_ : even_;
    poison = hn::MulAdd(x, hn::Zero(d), poison);
    hn::Store(x, d, to + (c / 2) * kKeys * kPanel + (c % 2) * kLanes);
  }
  bool finite() const {
    const VF sum = hn::Add(even_, odd_);
    return hn::AllTrue(DF(), hn::Eq(sum, sum));
  }

 private:
  VF even_, odd_;
};

// dst: panels [kKeys][kPanel] of value columns. Returns whether every element is finite: an
// infinity or NaN under a weight of zero has to be kept away from the product.
inline bool PackValues(const Rows& v, int64_t b, int64_t h, const KeyTile& tile, float* row,
                       float* dst) {
  const int vecs = round_up(v.size(), kLanes) / kLanes;
  ValueRow put;
  if (v.plain() && v.size() % kLanes == 0) {
    WithPlainType(v.view().dtype, [&](auto type) HWY_ATTR {
      const int64_t bytes = kLanes * (type() == DType::f32 ? 4 : 2);
      for (int j = 0; j < tile.n; ++j) {
        const char* src = v.view().at(b, h, tile.id[j]);
        int c = 0;
        for (; c + 2 <= vecs; c += 2) {
          put.Put(Widen(src + c * bytes, type), 0, dst + j * kPanel + (c / 2) * kKeys * kPanel);
          put.Put(Widen(src + (c + 1) * bytes, type), 1,
                  dst + j * kPanel + (c / 2) * kKeys * kPanel);
        }
        if (c < vecs) put.Put(Widen(src + c * bytes, type), c, dst + j * kPanel);
      }
    });
    return put.finite();
  }
  for (int j = 0; j < tile.n; ++j) {
    v.Read(b, h, tile.id[j], row);
    for (int c = 0; c < vecs; ++c) put.Put(hn::Load(DF(), row + c * kLanes), c, dst + j * kPanel);
  }
  return put.finite();
}

// f(r, row) for the rows of one panel: `live` rows from the tile, times `factor`, the rest 0. What
// lies past the row's end, up to a vector, is finite. row: [dk rounded up to 32].
template <class F>
HWY_INLINE void ForQueries(const Rows& q, const RowTile& t, const Panel& p, float factor,
                           float* row, const F& f) {
  const DF d;
  for (int r = 0; r < p.rows; ++r) {
    if (r <= p.live) std::fill(row, row + round_up(q.size(), 32), 0.0f);
    if (r < p.live) {
      const int64_t at = p.first + r;
      q.Read(t.b, t.h0 + at % t.heads, t.query(at), row);
      for (int64_t c = 0; c < q.size(); c += kLanes)
        hn::Store(hn::Mul(hn::Load(d, row + c), hn::Set(d, factor)), d, row + c);
    }
    f(r, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
