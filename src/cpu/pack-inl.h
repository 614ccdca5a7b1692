// Packing: a tile of keys transposed, a tile of values by column panels, the query rows with the
// scale folded in; all f32. Done once per row tile, not once per row. Layer: cpu (per target).
#if defined(REGARD_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_PACK_INL_H_
#undef REGARD_CPU_PACK_INL_H_
#else
#define REGARD_CPU_PACK_INL_H_
#endif

#include "cpu/cover.h"
#include "cpu/decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// Four dims of kLanes keys, as lanes of four vectors. tmp: [4][kLanes / 4][4], vector i holding
// keys i, 4 + i, 8 + i, ... (four dims each), so that a 4 x 4 transpose inside every 128-bit block
// leaves the keys in order.
#if HWY_TARGET != HWY_SCALAR
HWY_INLINE void Transpose4(const float* tmp, float* dst, int dims) {
  const DF d;
  const hn::Repartition<double, DF> dd;
  const VF a = hn::Load(d, tmp), b = hn::Load(d, tmp + kLanes);
  const VF c = hn::Load(d, tmp + 2 * kLanes), e = hn::Load(d, tmp + 3 * kLanes);
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

// dst: panels [dk][kPanel] of keys. Columns past tile.n hold what was there before: the scores they
// make are masked. row: dk rounded up to 32; tmp: kLanes * (dk rounded up to 4).
inline void PackKeys(const Rows& k, int64_t b, int64_t h, const KeyTile& tile, float* row,
                     float* tmp, float* dst) {
  const int64_t dk = k.size();
  for (int g = 0; g * kLanes < tile.n; ++g) {
    float* panel = dst + (g / 2) * dk * kPanel + (g % 2) * kLanes;
    const int keys = std::min(kLanes, tile.n - g * kLanes);
#if HWY_TARGET == HWY_SCALAR
    (void)tmp, (void)keys;
    k.Read(b, h, tile.id[g], row);
    for (int64_t c = 0; c < dk; ++c) panel[c * kPanel] = row[c];
#else
    const hn::Full128<float> d4;
    for (int j = 0; j < keys; ++j) {
      k.Read(b, h, tile.id[g * kLanes + j], row);
      float* slot = tmp + (j % 4) * kLanes + j / 4 * 4;
      for (int64_t c = 0; c < dk; c += 4) hn::Store(hn::Load(d4, row + c), d4, slot + c * kLanes);
    }
    for (int64_t c = 0; c < dk; c += 4) {
      Transpose4(tmp + c * kLanes, panel + c * kPanel, int(std::min<int64_t>(4, dk - c)));
    }
#endif
  }
}

// dst: panels [kKeys][kPanel] of value columns. Returns whether every element is finite: an
// infinity or NaN under a weight of zero has to be kept away from the product.
inline bool PackValues(const Rows& v, int64_t b, int64_t h, const KeyTile& tile, float* row,
                       float* dst) {
  const DF d;
  const int vecs = round_up(v.size(), kLanes) / kLanes;
  VF poison = hn::Zero(d);
  for (int j = 0; j < tile.n; ++j) {
    v.Read(b, h, tile.id[j], row);
    float* to = dst + j * kPanel;
    for (int c = 0; c < vecs; ++c) {
      const VF x = hn::Load(d, row + c * kLanes);
      poison = hn::MulAdd(x, hn::Zero(d), poison);
      hn::Store(x, d, to + (c / 2) * kKeys * kPanel + (c % 2) * kLanes);
    }
  }
  return hn::AllTrue(d, hn::Eq(poison, poison));
}

// dst: [dk][rows] of one row panel, times `factor`; `live` rows come from the tile, the rest are 0.
inline void PackQueries(const Rows& q, const RowTile& t, int64_t first, int rows, int live,
                        float factor, float* row, float* dst) {
  const int64_t dk = q.size();
  for (int r = 0; r < rows; ++r) {
    if (r < live) {
      q.Read(t.b, t.h0 + (first + r) % t.heads, t.i0 + (first + r) / t.heads, row);
    } else {
      std::fill(row, row + dk, 0.0f);
    }
    for (int64_t c = 0; c < dk; ++c) dst[c * rows + r] = row[c] * factor;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
