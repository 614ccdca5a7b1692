// Numeric int16: P V of 16-bit weights and a cache's own levels. Layer: cpu (per target).
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

inline constexpr float kMost = 32767;  // the largest 16-bit level

// sum + the products of pairs. kDot: by VNNI's one instruction instead of two, with the same bits.
// Highway 1.0.3 has no target for it, and a function of another target would not be inlined here.
template <bool kDot>
HWY_INLINE VI AddPairs(V16 a, V16 b, VI sum) {
#if REGARD_DOT && HWY_MAX_BYTES == 64
  if constexpr (kDot) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
#endif
  VI unused = hn::Zero(DI());
  return hn::Add(hn::ReorderWidenMulAccumulate(DI(), a, b, sum, unused), unused);
}

// Weights of one row and one block of channels: w = p * step, both scaled for 16 bits.
HWY_INLINE void RoundWeights(const float* p, const float* step, int vecs, int16_t* level) {
  const DF d;
  const DI di;
  const hn::Rebind<int16_t, DF> half;
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const VF magic = hn::Set(d, 12582912.0f);
  for (int v = 0; v < vecs; ++v) {
    const VF w = hn::MulAdd(hn::Load(d, p + v * kLanes), hn::Load(d, step + v * kLanes), magic);
    const VI whole = hn::Sub(hn::BitCast(di, w), hn::BitCast(di, magic));
    hn::Store(hn::DemoteTo(half, whole), half, level + v * kLanes);
  }
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

// Part `n` of a block as 16-bit levels: all 32 channels, or 16 of them where vectors are shorter.
HWY_INLINE V16 LoadLevels(const char* block, int n) {
  const hn::Rebind<int8_t, D16> d8;
  return hn::PromoteTo(
      D16(), hn::LoadU(d8, reinterpret_cast<const int8_t*>(block) + n * int(hn::Lanes(d8))));
}

inline constexpr int kParts = 16 / kLanes;  // vectors of 16-bit levels a block

// 32 channels of two keys as pairs. Bytes: in the order of InterleaveLower and InterleaveUpper, see
// UnmixChannels; nibbles: in their own. zero: of nibbles.
template <bool kNibbles>
HWY_INLINE void LoadPairs(const char* a, const char* c, V16 zero, V16 (&pair)[kParts][2]) {
  const D16 d;
  if constexpr (!kNibbles) {
    REGARD_UNROLL
    for (int n = 0; n < kParts; ++n) {
      const V16 x = LoadLevels(a, n), y = LoadLevels(c, n);
      pair[n][0] = hn::InterleaveLower(d, x, y);
      pair[n][1] = hn::InterleaveUpper(d, x, y);
    }
    return;
  }
  const hn::Full128<uint8_t> d8;
  const hn::RebindToUnsigned<D16> du;
  const auto x = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(a));
  const auto y = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(c));
  const auto lower = hn::InterleaveLower(d8, x, y), upper = hn::InterleaveUpper(d8, x, y);
  const auto put = [&](auto words, V16* low, V16* high) HWY_ATTR {
    *low = hn::Sub(hn::BitCast(d, hn::And(words, hn::Set(du, 15))), zero);
    *high = hn::Sub(hn::BitCast(d, hn::ShiftRight<4>(words)), zero);
  };
#if HWY_MAX_BYTES == 64
  const hn::Rebind<uint8_t, D16> both;
  put(hn::PromoteTo(du, hn::Combine(both, upper, lower)), &pair[0][0], &pair[0][1]);
#else
  put(hn::PromoteTo(du, lower), &pair[0][0], &pair[1][0]);
  put(hn::PromoteTo(du, upper), &pair[0][1], &pair[1][1]);
#endif
}

// o[r][block] += w_step * sum_j w[r][j] level[j], for one block of 32 channels, in LoadPairs'
// order. w: [R][kKeys], 0 past the tile's keys up to a multiple of four. Few rows sum every other
// pair of keys apart, so that no addition waits for the one before.
template <int R, bool kDot, bool kNibbles>
HWY_INLINE void AddLevels(const int16_t* HWY_RESTRICT w, const float* w_step, const float* lows,
                          const LevelRows& v, int zero, int64_t b, int keys, const Ahead& next,
                          float* HWY_RESTRICT o, int64_t width) {
  const DF d;
  const DI di;
  const D16 d16;
  constexpr int kApart = R == 1 ? 2 : 1;
  VI sum[kApart][R][kParts][2];
  REGARD_UNROLL
  for (int u = 0; u < kApart; ++u) {
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int n = 0; n < kParts; ++n) sum[u][r][n][0] = sum[u][r][n][1] = hn::Zero(di);
    }
  }
  const int64_t at = b * v.stride;
  const V16 offset = hn::Set(d16, int16_t(zero));
  const bool fetch = b < next.lines;
  for (int64_t first = 0; first < keys; first += 2 * kApart) {
    REGARD_UNROLL
    for (int u = 0; u < kApart; ++u) {
      const int64_t j = first + 2 * u;
      FetchBlock<2>(next.row + j, b, fetch);
      V16 pair[kParts][2];
      LoadPairs<kNibbles>(v.row[j] + at, v.row[j + 1] + at, offset, pair);
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        int32_t word;
        std::memcpy(&word, w + r * kKeys + j, 4);
        const V16 weight = hn::BitCast(d16, hn::Set(di, word));
        REGARD_UNROLL
        for (int n = 0; n < kParts; ++n) {
          sum[u][r][n][0] = AddPairs<kDot>(pair[n][0], weight, sum[u][r][n][0]);
          sum[u][r][n][1] = AddPairs<kDot>(pair[n][1], weight, sum[u][r][n][1]);
        }
      }
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    const VF step = hn::Set(d, w_step[r]), low = hn::Set(d, lows[r]);
    REGARD_UNROLL
    for (int n = 0; n < 2 * kParts; ++n) {
      VI total = sum[0][r][n / 2][n % 2];
      if constexpr (kApart == 2) total = hn::Add(total, sum[1][r][n / 2][n % 2]);
      float* to = o + r * width + n * kLanes;
      const VF old = hn::Add(hn::Load(d, to), low);
      hn::Store(hn::MulAdd(hn::ConvertTo(d, total), step, old), d, to);
    }
  }
}

// o[R][width] += p v. p: [R][kKeys] of weights, 0 past the tile's keys up to a vector; scaled here.
// scratch: [R][kKeys] 16-bit levels.
template <int R, bool kDot, bool kNibbles>
HWY_NOINLINE void AddLevelRows(float* p, const LevelRows& v, int zero, int keys, const Ahead& next,
                               int16_t* scratch, float* o, int64_t width) {
  const DF d;
  const int vecs = round_up(keys, kLanes) / kLanes;
  float unit[R];  // p = unit * (what is kept of it)
  for (int r = 0; r < R; ++r) {
    const float most = Largest(p + r * kKeys, vecs);
    unit[r] = most > 1e-30f ? most / kMost : 0;  // less is as good as nothing
    Scale(p + r * kKeys, unit[r] > 0 ? kMost / most : 0, vecs, p + r * kKeys);
  }
  alignas(64) float step[kKeys];
  for (int64_t b = 0; b < v.blocks; ++b) {
    const float most = Largest(v.step + b * kKeys, vecs);
    Scale(v.step + b * kKeys, most > 0 ? 1 / most : 0, vecs, step);
    float w_step[R], lows[R] = {};
    for (int r = 0; r < R; ++r) {
      RoundWeights(p + r * kKeys, step, vecs, scratch + r * kKeys);
      w_step[r] = unit[r] * most;
      if (!v.lows) continue;
      VF sum = hn::Zero(d);
      for (int i = 0; i < vecs * kLanes; i += kLanes) {
        sum = hn::MulAdd(hn::Load(d, p + r * kKeys + i), hn::Load(d, v.low + b * kKeys + i), sum);
      }
      lows[r] = unit[r] * hn::GetLane(hn::SumOfLanes(d, sum));
    }
    AddLevels<R, kDot, kNibbles>(scratch, w_step, lows, v, zero, b, round_up(keys, 4), next,
                                 o + b * 32, width);
  }
}

// Channels of one row from the order of AddLevels to their own. Interleaving works on blocks of
// eight channels: the lower halves of a vector's blocks come first.
inline void UnmixChannels(float* o, int64_t width) {
  for (int64_t c = 0; c < width; c += 2 * kLanes) {
    float mixed[2 * kLanes];
    std::memcpy(mixed, o + c, sizeof(mixed));
    for (int i = 0; i < 2 * kLanes; ++i) {
      o[c + i] = mixed[i / 8 * 4 + i % 4 + (i % 8 < 4 ? 0 : kLanes)];
    }
  }
}

#endif  // REGARD_LEVELS
}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
