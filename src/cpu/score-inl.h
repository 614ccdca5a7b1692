// What happens to a row of scores between Q K^T and the softmax: cap, biases, masks. Every step is
// skipped where the tile does not need it. Layer: cpu (per target).
#if defined(REGARD_CPU_SCORE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_SCORE_INL_H_
#undef REGARD_CPU_SCORE_INL_H_
#else
#define REGARD_CPU_SCORE_INL_H_
#endif

#include "cpu/call.h"
#include "cpu/cover.h"
#include "cpu/decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

inline const char* Element(const View& v, int64_t b, int64_t h, int64_t i) {
  return v.at(v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i);
}

// Bias of the tile's keys for one row, in natural units. dst: [kKeys].
inline void ReadBias(const View& v, const char* row, const KeyTile& tile, float* dst) {
  if (tile.run && v.stride[3] == info(v.dtype).bytes) {
    return Decoder(v.dtype)(row + tile.first() * v.stride[3], tile.n, dst);
  }
  const DecodeFn decode = Decoder(v.dtype);
  alignas(64) float one[kLanes];
  for (int j = 0; j < tile.n; ++j) {
    decode(row + tile.id[j] * v.stride[3], 1, one);
    dst[j] = one[0];
  }
  for (int j = tile.n; j % kLanes != 0; ++j) dst[j] = 0;
}

// s += factor * bias; a bias of -inf forbids the pair whatever its score (NaN too).
HWY_INLINE void AddBias(const float* bias, float factor, int vecs, float* s) {
  const DF d;
  const VF forbid = hn::Set(d, -kInf);
  for (int v = 0; v < vecs; ++v) {
    const VF x = hn::Load(d, bias + v * kLanes);
    const VF sum = hn::MulAdd(x, hn::Set(d, factor), hn::Load(d, s + v * kLanes));
    hn::Store(hn::IfThenElse(hn::Eq(x, forbid), forbid, sum), d, s + v * kLanes);
  }
}

HWY_INLINE void SoftCap(float cap, int vecs, float* s) {
  const DF d;
  for (int v = 0; v < vecs; ++v) {
    const VF t = Tanh(hn::Load(d, s + v * kLanes));
    hn::Store(hn::Mul(t, hn::Set(d, cap)), d, s + v * kLanes);
  }
}

// s -= slope * |position - id|, slope in log2 units.
HWY_INLINE void AddAlibi(const KeyTile& tile, int32_t position, float slope, int vecs, float* s) {
  const DF d;
  const DI di;
  for (int v = 0; v < vecs; ++v) {
    const auto id = hn::LoadU(di, tile.id + v * kLanes);
    const VF away = hn::Abs(hn::ConvertTo(d, hn::Sub(hn::Set(di, position), id)));
    const VF x = hn::Load(d, s + v * kLanes);
    hn::Store(hn::NegMulAdd(away, hn::Set(d, slope), x), d, s + v * kLanes);
  }
}

// Keeps ids in [lo, hi) and [0, sink); the ids past the tile's end are in neither.
HWY_INLINE void MaskRange(const KeyTile& tile, int32_t lo, int32_t hi, int32_t sink, int vecs,
                          float* s) {
  const DF d;
  const DI di;
  for (int v = 0; v < vecs; ++v) {
    const auto id = hn::LoadU(di, tile.id + v * kLanes);
    const auto inside = hn::AndNot(hn::VecFromMask(di, hn::Lt(id, hn::Set(di, lo))),
                                   hn::VecFromMask(di, hn::Lt(id, hn::Set(di, hi))));
    const auto first = hn::VecFromMask(di, hn::Lt(id, hn::Set(di, sink)));
    const auto keep = hn::MaskFromVec(hn::BitCast(d, hn::Or(inside, first)));
    const VF x = hn::Load(d, s + v * kLanes);
    hn::Store(hn::IfThenElse(keep, x, hn::Set(d, -kInf)), d, s + v * kLanes);
  }
}

inline void MaskBits(const BitMask& mask, const uint64_t* row, const KeyTile& tile, float* s) {
  if (tile.run && tile.first() % 64 == 0) {
    const uint64_t live = tile.n == 64 ? ~0ull : (1ull << tile.n) - 1;
    for (uint64_t off = ~row[tile.first() / 64] & live; off != 0; off &= off - 1) {
      s[__builtin_ctzll(off)] = -kInf;
    }
    return;
  }
  (void)mask;
  for (int j = 0; j < tile.n; ++j) {
    if (!(row[tile.id[j] >> 6] >> (tile.id[j] & 63) & 1)) s[j] = -kInf;
  }
}

// One row of a tile. key_bias: [kKeys] in natural units or null. full: the row may read every key
// of the tile and the tile is whole, as far as ranges go.
inline void ScoreRow(const Call& c, const KeyTile& tile, const float* key_bias, int64_t b,
                     int64_t h, int64_t i, bool full, int vecs, float* s) {
  const Score& score = c.score;
  if (score.softcap > 0) SoftCap(c.cap, vecs, s);
  if (!score.alibi.empty()) AddAlibi(tile, c.position[i], score.alibi[h] * kLog2e, vecs, s);
  if (score.bias) {
    alignas(64) float bias[kKeys];
    const View& v = score.bias.view;
    ReadBias(v, Element(v, b, h, i), tile, bias);
    AddBias(bias, (score.bias_scale.empty() ? 1.0f : score.bias_scale[h]) * kLog2e, vecs, s);
  }
  if (key_bias) AddBias(key_bias, kLog2e, vecs, s);
  if (c.mask && tile.some_forbidden) MaskBits(*c.mask, c.mask->row(b, h, i), tile, s);
  const RowRanges& r = *c.w.ranges;
  if (!full) MaskRange(tile, r.lo[i], r.hi[i], r.sink[i], vecs, s);
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
