// Numeric int16: P V of 16-bit weights and a cache's own levels. Layer: cpu (per target).
//
// Bytes of four keys are transposed: a lane is a channel, its word that channel's four levels. They
// meet words of four weights.
#if defined(REGARD_CPU_LEVEL_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_LEVEL_VALUES_INL_H_
#undef REGARD_CPU_LEVEL_VALUES_INL_H_
#else
#define REGARD_CPU_LEVEL_VALUES_INL_H_
#endif

#include "cpu/levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {
#if REGARD_LEVELS

inline constexpr int kWeightWords = kKeys / 2;  // of a row and block: first and second of 4 keys

// Weights of one row and one block of channels: w = p * step, both scaled for 16 bits, as words.
// Returns their sum.
template <bool kDot, int kVecs>
HWY_INLINE int32_t RoundWeights(const float* p, const float* step, int any_vecs, int32_t* word) {
  const DF d;
  const DI di;
  const int vecs = kVecs ? kVecs : any_vecs;
  const hn::Rebind<int16_t, DF> half;
  const hn::Repartition<uint8_t, decltype(half)> bytes;
  // Bytes of four weights: upper and lower ones (kDot), or weights 0 and 2, then 1 and 3.
  alignas(16) static constexpr uint8_t kOrder[16] = {1, 3,  5,  7,  0, 2,  4,  6,
                                                     9, 11, 13, 15, 8, 10, 12, 14};
  alignas(16) static constexpr uint8_t kPairs[16] = {0, 1, 4,  5,  2,  3,  6,  7,
                                                     8, 9, 12, 13, 10, 11, 14, 15};
  alignas(16) static constexpr uint8_t kFlip[16] = {0, 0, 0, 0, 128, 128, 128, 128,
                                                    0, 0, 0, 0, 128, 128, 128, 128};
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits. 128 more carries into the upper
  // byte what a signed lower byte lacks, and turns that byte's sign.
  const VF magic = hn::Set(d, 12582912.0f);
  const VI base = hn::Sub(hn::BitCast(di, magic), hn::Set(di, kDot ? 128 : 0));
  const auto order = hn::LoadDup128(bytes, kDot ? kOrder : kPairs);
  VI sum = hn::Zero(di);
  REGARD_UNROLL
  for (int v = 0; v < vecs; ++v) {
    const VF w = hn::MulAdd(hn::Load(d, p + v * kLanes), hn::Load(d, step + v * kLanes), magic);
    const VI whole = hn::Sub(hn::BitCast(di, w), base);
    sum = hn::Add(sum, whole);
    auto x = hn::TableLookupBytes(hn::BitCast(bytes, hn::DemoteTo(half, whole)), order);
    if constexpr (kDot) x = hn::Xor(x, hn::LoadDup128(bytes, kFlip));
    hn::StoreU(x, bytes, reinterpret_cast<uint8_t*>(word + v * kLanes / 2));
  }
  return hn::GetLane(hn::SumOfLanes(di, sum)) - (kDot ? 128 * vecs * kLanes : 0);
}

// to = x * factor.
HWY_INLINE void Scale(const float* x, float factor, int vecs, float* to) {
  const DF d;
  for (int v = 0; v < vecs * kLanes; v += kLanes) {
    hn::Store(hn::Mul(hn::Load(d, x + v), hn::Set(d, factor)), d, to + v);
  }
}

HWY_INLINE float Largest(const float* x, int vecs) {
  const DF d;
  VF most = hn::Abs(hn::Load(d, x));
  for (int v = kLanes; v < vecs * kLanes; v += kLanes) {
    most = hn::Max(most, hn::Abs(hn::Load(d, x + v)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

inline constexpr int kParts = 16 / kLanes;  // of a block of 32 channels, two vectors each

// Part `n` of a block of four keys, channels in order, as levels that are multiplied.
#if HWY_MAX_BYTES == 64
template <bool kNibbles>
HWY_INLINE void LoadChannels(const char* const* row, int64_t at, int, V16 (&x)[2]) {
  // Words 0 to 3 (4 to 7) of four keys: word i of every key in block i.
  alignas(64) static constexpr int32_t kLow[16] = {0, 8,  16, 24, 1, 9,  17, 25,
                                                   2, 10, 18, 26, 3, 11, 19, 27};
  alignas(64) static constexpr int32_t kHigh[16] = {4, 12, 20, 28, 5, 13, 21, 29,
                                                    6, 14, 22, 30, 7, 15, 23, 31};
  alignas(64) static constexpr int32_t kWords[16] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                     2, 6, 10, 14, 3, 7, 11, 15};
  alignas(16) static constexpr uint8_t kSquare[16] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                      2, 6, 10, 14, 3, 7, 11, 15};
  const D16 d;
  const hn::Repartition<uint8_t, D16> bytes;
  const auto square = hn::LoadDup128(bytes, kSquare);
  const auto turned = [&](__m512i words) HWY_ATTR {
    return hn::BitCast(d, hn::TableLookupBytes(hn::Vec<decltype(bytes)>{words}, square));
  };
  if constexpr (kNibbles) {
    const auto block = [&](int j) HWY_ATTR {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[j] + at));
    };
    const __m256i ab = _mm256_inserti128_si256(_mm256_castsi128_si256(block(0)), block(1), 1);
    const __m256i ce = _mm256_inserti128_si256(_mm256_castsi128_si256(block(2)), block(3), 1);
    const __m512i four = _mm512_inserti64x4(_mm512_castsi256_si512(ab), ce, 1);
    const V16 both = turned(_mm512_permutexvar_epi32(_mm512_load_si512(kWords), four));
    x[0] = Nibble<false>(both);
    x[1] = Nibble<true>(both);
  } else {
    const auto two = [&](int j) HWY_ATTR {
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row[j] + at));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row[j + 1] + at));
      return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
    };
    const V16 flip = hn::Set(d, int16_t(0x8080));
    const __m512i ab = two(0), ce = two(2);
    x[0] = hn::Xor(turned(_mm512_permutex2var_epi32(ab, _mm512_load_si512(kLow), ce)), flip);
    x[1] = hn::Xor(turned(_mm512_permutex2var_epi32(ab, _mm512_load_si512(kHigh), ce)), flip);
  }
}
#else
template <bool kNibbles>
HWY_INLINE void LoadChannels(const char* const* row, int64_t at, int n, V16 (&x)[2]) {
  const D16 d;
  const hn::Repartition<uint8_t, D16> bytes;
  const hn::Full128<uint8_t> d8;
  const hn::Full128<uint16_t> d16;
  const auto key = [&](int j) HWY_ATTR {
    return hn::LoadU(d8, reinterpret_cast<const uint8_t*>(row[j] + at + (kNibbles ? 0 : 16 * n)));
  };
  const auto zip = [&](auto a, auto b, auto* low, auto* high) HWY_ATTR {
    *low = hn::BitCast(d16, hn::InterleaveLower(d8, a, b));
    *high = hn::BitCast(d16, hn::InterleaveUpper(d8, a, b));
  };
  hn::Vec<decltype(d16)> ab0, ab1, ce0, ce1;
  zip(key(0), key(1), &ab0, &ab1);
  zip(key(2), key(3), &ce0, &ce1);
  const auto join = [&](auto a, auto b) HWY_ATTR {
    const auto low = hn::BitCast(d8, hn::InterleaveLower(d16, a, b));
    const auto high = hn::BitCast(d8, hn::InterleaveUpper(d16, a, b));
    const V16 y = hn::BitCast(d, hn::Combine(bytes, high, low));
    if constexpr (!kNibbles) return hn::Xor(y, hn::Set(d, int16_t(0x8080)));
    return n == 0 ? Nibble<false>(y) : Nibble<true>(y);
  };
  x[0] = join(ab0, ce0);
  x[1] = join(ab1, ce1);
}
#endif

// What AddLevels needs of one row and block of channels.
struct BlockWeights {
  int32_t begin;
  float step, low;
};

// o[r][block] += step * (begin + sum_j w[r][j] level[j]) + low, one part of a block. word and `of`:
// the block's, those of the next row v.blocks further on; words are 0 past the tile's keys up to a
// multiple of four.
template <int R, bool kDot, bool kNibbles>
HWY_INLINE void AddLevels(const int32_t* HWY_RESTRICT word, const BlockWeights* of,
                          const LevelRows& v, int64_t b, int part, int keys, const Ahead& next,
                          float* HWY_RESTRICT o, int64_t width) {
  const DF d;
  const DI di;
  const D16 d16;
  VI first[R][2], second[R][2];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    first[r][0] = first[r][1] = hn::Zero(di);
    second[r][0] = second[r][1] = hn::Set(di, of[r * v.blocks].begin);
  }
  const int64_t at = v.skip + b * v.stride;
  const bool fetch = part == 0 && b < next.lines;
  const char* const* row = v.row;
  const int64_t stride = v.blocks * kWeightWords;
  for (int j = 0; j < keys; j += 4) {
    FetchBlock<4>(next.row + j, b, fetch);
    V16 x[2];
    LoadChannels<kNibbles>(row + j, at, part, x);
    const Quads low = Split<kDot>(x[0]), high = Split<kDot>(x[1]);
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const int32_t* w = word + r * stride + j / 2;
      const V16 w0 = hn::BitCast(d16, hn::Set(di, w[0])), w1 = hn::BitCast(d16, hn::Set(di, w[1]));
      VI* to = kDot ? first[r] : second[r];
      to[0] = AddQuads<kDot>(low.first, w0, to[0]);
      to[1] = AddQuads<kDot>(high.first, w0, to[1]);
      second[r][0] = AddQuads<kDot>(low.second, w1, second[r][0]);
      second[r][1] = AddQuads<kDot>(high.second, w1, second[r][1]);
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    const BlockWeights& w = of[r * v.blocks];
    const VF step = hn::Set(d, w.step), low = hn::Set(d, w.low);
    REGARD_UNROLL
    for (int n = 0; n < 2; ++n) {
      const VI total = hn::Add(Join<kDot>(first[r][n]), second[r][n]);
      float* to = o + r * width + n * kLanes;
      const VF old = hn::Add(hn::Load(d, to), low);
      hn::Store(hn::MulAdd(hn::ConvertTo(d, total), step, old), d, to);
    }
  }
}

// p: [R][kKeys], scaled to 16 bits by 1 / unit. word: [R][blocks][kWeightWords]; of: [R][blocks].
template <int R, bool kDot, int kVecs>
HWY_INLINE void RoundBlocks(const float* p, const float* unit, const LevelRows& v, int offset,
                            float level_unit, int any_vecs, int32_t* word, BlockWeights* of) {
  const DF d;
  const int vecs = kVecs ? kVecs : any_vecs;
  for (int64_t b = 0; b < v.blocks; ++b) {
    alignas(64) float step[kKeys];
    const float most = Largest(v.step + b * kKeys, vecs);
    Scale(v.step + b * kKeys, most > 0 ? 1 / most : 0, vecs, step);
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * v.blocks + b;
      const int32_t sum =
          RoundWeights<kDot, kVecs>(p + r * kKeys, step, vecs, word + at * kWeightWords);
      of[at] = {-offset * sum, unit[r] * most * level_unit, 0};
      if (!v.lows) continue;
      VF low = hn::Zero(d);
      for (int i = 0; i < vecs * kLanes; i += kLanes) {
        low = hn::MulAdd(hn::Load(d, p + r * kKeys + i), hn::Load(d, v.low + b * kKeys + i), low);
      }
      of[at].low = unit[r] * hn::GetLane(hn::SumOfLanes(d, low));
    }
  }
}

// o[R][width] += p v. p: [R][kKeys] of weights, 0 past the tile's keys up to a vector; scaled here.
// word: [R][blocks][kWeightWords]. Weights of all blocks are rounded before the first is used, so
// that their chains of short steps run side by side.
template <int R, bool kDot, bool kNibbles>
HWY_NOINLINE void AddLevelRows(float* p, const LevelRows& v, int offset, int keys,
                               const Ahead& ahead, int32_t* word, float* o, int64_t width) {
  const Ahead next = ahead;
  const int vecs = round_up(keys, kLanes) / kLanes;
  float unit[R];  // p = unit * (what is kept of it)
  for (int r = 0; r < R; ++r) {
    const float most = Largest(p + r * kKeys, vecs);
    unit[r] = most > 1e-30f ? most / kMostFactor : 0;  // less is as good as nothing
    Scale(p + r * kKeys, unit[r] > 0 ? kMostFactor / most : 0, vecs, p + r * kKeys);
  }
  BlockWeights of[R * kMaxBlocks];
  const float level_unit = kNibbles ? kNibbleUnit : 1;
  if (vecs == kKeyVecs) {
    RoundBlocks<R, kDot, kKeyVecs>(p, unit, v, offset, level_unit, vecs, word, of);
  } else {
    RoundBlocks<R, kDot, 0>(p, unit, v, offset, level_unit, vecs, word, of);
  }
  for (int64_t b = 0; b < v.blocks; ++b) {
    for (int part = 0; part < kParts; ++part) {
      AddLevels<R, kDot, kNibbles>(word + b * kWeightWords, of + b, v, b, part, round_up(keys, 4),
                                   next, o + b * 32 + part * 2 * kLanes, width);
    }
  }
}

#endif  // REGARD_LEVELS
}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
