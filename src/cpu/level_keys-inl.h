// Numeric int16: Q K^T of 16-bit queries and a cache's own levels. Layer: cpu (per target).
//
// A vector holds the same 16 channels of kLanes / 4 keys, a 128-bit block each: four groups of keys
// make up kLanes of them, and the four sums in each block of each group are added up at the end.
#if defined(REGARD_CPU_LEVEL_KEYS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_LEVEL_KEYS_INL_H_
#undef REGARD_CPU_LEVEL_KEYS_INL_H_
#else
#define REGARD_CPU_LEVEL_KEYS_INL_H_
#endif

#include "cpu/levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {
#if REGARD_LEVELS

inline constexpr int kGroups = 4;                     // of keys, see above
inline constexpr int kQueryWords = 5 * kLanes;        // of a block, see LevelQueries
inline constexpr float kMostQuery = kMostFactor - 1;  // one more may be needed

// Rows of queries. word: first words of channels 0 and 16 on, second words of both, and where the
// sums begin, each 128 bits that fill a vector (such loads are faster than broadcasts).
struct LevelQueries {
  const int32_t* word;  // [R][blocks][kQueryWords]
  const float* step;    // [R]
  const float* sum;     // [R][blocks]
};

// One row of queries. False: not finite. offset: of the unsigned levels.
//
// With bytes (kDot) sums begin with half of what the offset adds up to, since they are shifted by
// eight bits on the way: a block's levels 4 i and 16 + 4 i on have to add up to an even number, and
// the first of them gives way.
template <bool kDot>
HWY_NOINLINE bool QuantizeRow(const float* q, int64_t blocks, int offset, int32_t* words,
                              float* step, float* sum) {
  const DF d;
  const DI di;
  const hn::Rebind<int8_t, DI> d8;
  VF top = hn::Zero(d), poison = hn::Zero(d);
  for (int64_t i = 0; i < blocks * 32; i += kLanes) {
    const VF x = hn::LoadU(d, q + i);
    top = hn::Max(top, hn::Abs(x));
    poison = hn::MulAdd(x, hn::Zero(d), poison);
  }
  if (!hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)))) return false;
  const float most = hn::GetLane(hn::MaxOfLanes(d, top));
  *step = most / kMostQuery;
  // A row of such tiny numbers counts as 0: the inverse has to be finite.
  const VF inverse = hn::Set(d, most > 1e-30f ? kMostQuery / most : 0);
  alignas(64) static constexpr int32_t kFirst[16] = {1, 0, 0, 0, 1, 0, 0, 0,
                                                     1, 0, 0, 0, 1, 0, 0, 0};
  const VI first = hn::Load(di, kFirst);
  for (int64_t b = 0; b < blocks; ++b, q += 32) {
    alignas(64) int32_t word[20];
    VF total = hn::Zero(d);
    for (int i = 0; i < 16; i += kLanes) {
      const VF lower = hn::LoadU(d, q + i), upper = hn::LoadU(d, q + 16 + i);
      total = hn::Add(total, hn::Add(lower, upper));
      const VF x = hn::Mul(lower, inverse);
      VI level = hn::NearestInt(x);
      const VI other = hn::NearestInt(hn::Mul(upper, inverse));
      VI begin = hn::Add(level, other);  // sums of the blocks of 128 bits
      begin = hn::Add(begin, hn::Shuffle2301(begin));
      begin = hn::Add(begin, hn::Shuffle1032(begin));
      if constexpr (kDot) {
        const auto down =
            hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(x, hn::ConvertTo(d, level))));
        const VI odd = hn::And(begin, hn::Set(di, 1));
        const VI give = hn::Or(odd, hn::And(down, hn::Neg(odd)));  // 1 or -1 where odd
        level = hn::Add(level, hn::And(give, hn::Neg(first)));
        begin = hn::Add(begin, give);
      }
      alignas(64) int32_t sums[kLanes];
      hn::Store(begin, di, sums);
      for (int n = 0; n < kLanes; n += 4) {
        word[16 + (i + n) / 4] = kDot ? -sums[n] / 2 * (offset / 128) : -sums[n] * offset;
      }
      const auto put = [&](VI x, int at) HWY_ATTR {
        if constexpr (kDot) {
          const VI upper_byte = hn::ShiftRight<8>(hn::Add(x, hn::Set(di, 128)));
          const VI lower_byte = hn::ShiftRight<24>(hn::ShiftLeft<24>(x));
          int8_t* bytes = reinterpret_cast<int8_t*>(word);
          hn::StoreU(hn::DemoteTo(d8, upper_byte), d8, bytes + at);
          hn::StoreU(hn::DemoteTo(d8, lower_byte), d8, bytes + 32 + at);
        } else {
          alignas(64) int32_t four[kLanes];
          hn::Store(x, di, four);
          for (int n = 0; n < kLanes; n += 4) {
            word[(at + n) / 4] = int32_t(four[n] & 0xffff) | int32_t(uint32_t(four[n + 2]) << 16);
            word[8 + (at + n) / 4] =
                int32_t(four[n + 1] & 0xffff) | int32_t(uint32_t(four[n + 3]) << 16);
          }
        }
      };
      put(level, i);
      put(other, 16 + i);
    }
    for (int n = 0; n < 5; ++n, words += kLanes) {
      hn::Store(hn::LoadDup128(di, word + 4 * n), di, words);
    }
    sum[b] = hn::GetLane(hn::SumOfLanes(d, total));
  }
  return true;
}

// 16 bytes at row[j] + at of keys j = 0, 4, 8, ...: a block each.
template <size_t N>
HWY_INLINE auto LoadQuads(const char* const* row, int64_t at) {
  const hn::CappedTag<uint8_t, N> d;
  if constexpr (N == 16) {
    return hn::LoadU(d, reinterpret_cast<const uint8_t*>(row[0] + at));
  } else {
    return hn::Combine(d, LoadQuads<N / 2>(row + N / 8, at), LoadQuads<N / 2>(row, at));
  }
}

// Channels 0 to 15 and 16 to 31 of a block, as levels that are multiplied.
template <bool kNibbles>
HWY_INLINE void LoadBlock(const char* const* row, int64_t at, V16 (&x)[2]) {
  const D16 d;
  if constexpr (kNibbles) {
    const V16 both = hn::BitCast(d, LoadQuads<4 * kLanes>(row, at));
    x[0] = Nibble<false>(both);
    x[1] = Nibble<true>(both);
  } else {
    const V16 flip = hn::Set(d, int16_t(0x8080));
    x[0] = hn::Xor(hn::BitCast(d, LoadQuads<4 * kLanes>(row, at)), flip);
    x[1] = hn::Xor(hn::BitCast(d, LoadQuads<4 * kLanes>(row, at + 16)), flip);
  }
}

// total[r][g] += step * sums of products, one block of channels of groups kFirst on, G of them.
// Rows to come are fetched a few at a time, in between.
template <int R, int G, int kFirst, bool kDot, bool kNibbles>
HWY_INLINE void AddGroups(const char* const* row, int64_t at, const int32_t* HWY_RESTRICT word,
                          int64_t row_stride, VF step, const char* const* later, int64_t b,
                          bool fetch, VF (&total)[R][kGroups]) {
  const DF d;
  const DI di;
  const D16 d16;
  V16 x[G][2];
  REGARD_UNROLL
  for (int g = 0; g < G; ++g) LoadBlock<kNibbles>(row + kFirst + g, at, x[g]);
  VF steps[G];
  steps[0] = hn::Broadcast<kFirst>(step);
  if constexpr (G == kGroups) {
    steps[1] = hn::Broadcast<1>(step);
    steps[2] = hn::Broadcast<2>(step);
    steps[3] = hn::Broadcast<3>(step);
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    const int32_t* HWY_RESTRICT w = word + r * row_stride;
    constexpr int kFetch = G * kLanes / kGroups;  // in R parts
    FetchBlock<(kFetch + R - 1) / R>(
        later + std::min(kFirst * kFetch + r * kFetch / R, kLanes - (kFetch + R - 1) / R), b,
        fetch);
    const auto load = [&](int n)
                          HWY_ATTR { return hn::BitCast(d16, hn::Load(di, w + n * kLanes)); };
    const V16 first[2] = {load(0), load(1)}, second[2] = {load(2), load(3)};
    const VI begin = hn::BitCast(di, load(4));
    VI sum[G];
    REGARD_UNROLL
    for (int g = 0; g < G; ++g) {
      sum[g] = AddQuads<kDot>(Split<kDot>(x[g][0]).first, first[0], begin);
    }
    REGARD_UNROLL
    for (int g = 0; g < G; ++g) {
      sum[g] = Join<kDot>(AddQuads<kDot>(Split<kDot>(x[g][1]).first, first[1], sum[g]));
    }
    REGARD_UNROLL
    for (int g = 0; g < G; ++g) {
      sum[g] = AddQuads<kDot>(Split<kDot>(x[g][0]).second, second[0], sum[g]);
    }
    REGARD_UNROLL
    for (int g = 0; g < G; ++g) {
      sum[g] = AddQuads<kDot>(Split<kDot>(x[g][1]).second, second[1], sum[g]);
      VF& to = total[r][kFirst + g];
      to = hn::MulAdd(hn::ConvertTo(d, sum[g]), steps[g], to);
    }
  }
}

// s[R][kKeys] = q k^T.
template <int R, bool kDot, bool kNibbles>
HWY_NOINLINE void DotLevels(const LevelQueries& queries, const LevelRows& k, int keys,
                            const Ahead& ahead, float* HWY_RESTRICT s) {
  const DF d;
  const LevelQueries q = queries;
  const Ahead next = ahead;
  const int64_t blocks = k.blocks, stride = blocks * kQueryWords;
  for (int64_t j = 0; j < keys; j += kLanes) {
    VF total[R][kGroups];
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int g = 0; g < kGroups; ++g) total[r][g] = hn::Zero(d);
    }
    const char* const* row = k.row + j;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = k.skip + b * k.stride;
      const VF step = hn::Load(d, k.step + b * kKeys + j);
      const int32_t* word = q.word + b * kQueryWords;
      const char* const* later = next.row + j;
      const bool fetch = b < next.lines;
      if constexpr (kLanes == 16) {
        AddGroups<R, 4, 0, kDot, kNibbles>(row, at, word, stride, step, later, b, fetch, total);
      } else {  // half the registers
        AddGroups<R, 1, 0, kDot, kNibbles>(row, at, word, stride, step, later, b, fetch, total);
        AddGroups<R, 1, 1, kDot, kNibbles>(row, at, word, stride, step, later, b, fetch, total);
        AddGroups<R, 1, 2, kDot, kNibbles>(row, at, word, stride, step, later, b, fetch, total);
        AddGroups<R, 1, 3, kDot, kNibbles>(row, at, word, stride, step, later, b, fetch, total);
      }
    }
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      VF score = hn::Mul(SumBlocks(total[r][0], total[r][1], total[r][2], total[r][3]),
                         hn::Set(d, kNibbles ? q.step[r] * kNibbleUnit : q.step[r]));
      for (int64_t b = 0; b < blocks && k.lows; ++b) {
        score = hn::MulAdd(hn::Load(d, k.low + b * kKeys + j), hn::Set(d, q.sum[r * blocks + b]),
                           score);
      }
      hn::Store(score, d, s + r * kKeys + j);
    }
  }
}

#endif  // REGARD_LEVELS
}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
