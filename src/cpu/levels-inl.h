// Numeric int16 at decode: a quantised cache's own levels against queries and weights of 16 bits.
// Layer: cpu (per target).
//
// A block of 32 channels is x = step * level + low, with |level| <= 128. Pairs of 16-bit products
// are added to an int32 in one instruction (vpmaddwd), which is exact: 32 channels or 64 keys of
// them stay below 2^29.
//
//   score   += q_step step sum(q_level level) + low sum(q)       a block of 32 channels at a time
//   o[c]    += w_step sum(w_level level)      + sum(p low)       a tile of 64 keys at a time
//
// where q = q_step * q_level (a step for each row's block of 32 channels), and p * step = w_step *
// w_level (a step for each row, tile and block): both are rounded at 2^-16 of their largest.
#if defined(REGARD_CPU_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_LEVELS_INL_H_
#undef REGARD_CPU_LEVELS_INL_H_
#else
#define REGARD_CPU_LEVELS_INL_H_
#endif

#include "cpu/isa.h"
#include "cpu/stream-inl.h"

// Highway adds neighbouring pairs in one lane on x86 only; elsewhere decode keeps to f32.
#undef REGARD_LEVELS
#define REGARD_LEVELS (HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR)

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// Levels of a tile's keys: block b of key j is 32 bytes at row[j] + b * stride.
struct LevelRows {
  const char* row[kKeys];
  int64_t stride = 32, blocks = 0;
  const float *step, *low;  // [blocks][kKeys]; past the tile's keys: finite
  bool lows = false;        // any type with a minimum
};

#if REGARD_LEVELS
inline constexpr int kMaxBlocks = 576 / 32;
using D16 = hn::Repartition<int16_t, DF>;
using V16 = hn::Vec<D16>;
using VI = hn::Vec<DI>;

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

// One row of queries: word n of a block holds levels (n even: 2n, 2n + 2; odd: 2n - 1, 2n + 1), the
// order in which TransposeLevels leaves them. False: not finite.
inline bool QuantizeRow(const float* q, int64_t blocks, int16_t* level, float* step, float* sum) {
  const DF d;
  const DI di;
  bool finite = true;
  for (int64_t b = 0; b < blocks; ++b, q += 32, level += 32) {
    float most = 0, total = 0;
    for (int i = 0; i < 32; ++i) {
      finite &= std::isfinite(q[i]);
      most = std::max(most, std::abs(q[i]));
      total += q[i];
    }
    step[b] = most / kMost;
    sum[b] = total;
    // A block of such tiny numbers counts as 0: the inverse has to be finite.
    const VF inverse = hn::Set(d, most > 1e-30f ? kMost / most : 0);
    alignas(64) int32_t whole[32];
    for (int i = 0; i < 32; i += kLanes) {
      hn::Store(hn::NearestInt(hn::Mul(hn::LoadU(d, q + i), inverse)), di, whole + i);
    }
    for (int i = 0; i < 32; i += 4) {
      for (int n = 0; n < 4; ++n) level[i + n] = int16_t(whole[i + (n & 1) * 2 + n / 2]);
    }
  }
  return finite;
}

// The levels of one tile's rows: a q8_0 row holds them as bytes, the others are spread out in
// `buffer`. steps, lows: [blocks][kKeys]. Returns whether all of those are finite.
template <DType T>
HWY_NOINLINE bool FindLevels(const char* const* row, int keys, int64_t blocks, char* buffer,
                             float* steps, float* lows, LevelRows* out) {
  using B = QuantBlock<T>;
  const DF d;
  const hn::Rebind<hwy::float16_t, DF> d16;
  alignas(64) uint16_t half[2][kMaxBlocks][kKeys];
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t at = b * B::kBytes;
    REGARD_UNROLL
    for (int j = 0; j < keys; ++j) std::memcpy(&half[0][b][j], row[j] + at, 2);
    for (int j = 0; j < keys && B::kMin; ++j) std::memcpy(&half[1][b][j], row[j] + at + 2, 2);
  }
  for (int j = 0; j < keys; ++j) {
    out->row[j] = T == DType::q8_0 ? row[j] + 2 : buffer + j * blocks * 32;
    for (int64_t b = 0; b < blocks && T != DType::q8_0; ++b) {
      ReadLevels<T>(row[j] + b * B::kBytes,
                    reinterpret_cast<int8_t*>(buffer + (j * blocks + b) * 32));
    }
  }
  for (int j = keys; j < kKeys; ++j) out->row[j] = out->row[keys - 1];
  VF poison = hn::Zero(d);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int n = 0; n < (B::kMin ? 2 : 1); ++n) {
      for (int j = keys; j < kKeys; ++j) half[n][b][j] = 0;
      for (int j = 0; j < kKeys; j += kLanes) {
        const auto bits = reinterpret_cast<const hwy::float16_t*>(&half[n][b][j]);
        const VF x = hn::PromoteTo(d, hn::Load(d16, bits));
        hn::Store(x, d, (n == 0 ? steps : lows) + b * kKeys + j);
        poison = hn::MulAdd(x, hn::Zero(d), poison);
      }
    }
  }
  out->stride = T == DType::q8_0 ? B::kBytes : 32;
  out->blocks = blocks;
  out->step = steps;
  out->low = lows;
  out->lows = B::kMin;
  return hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
}

template <size_t N>
HWY_INLINE auto LoadQuads(const char* const* row, int64_t at) {
  const hn::CappedTag<int8_t, N> d;
  if constexpr (N == 16) {
    return hn::LoadU(d, reinterpret_cast<const int8_t*>(row[0] + at));
  } else {
    return hn::Combine(d, LoadQuads<N / 2>(row + N / 8, at), LoadQuads<N / 2>(row, at));
  }
}

// 16 channels of kLanes keys, from 16 bytes of each: x[2 i] and x[2 i + 1] hold, for key `lane`,
// the pairs of channels (4 i, 4 i + 2) and (4 i + 1, 4 i + 3).
HWY_INLINE void TransposeLevels(const char* const* row, int64_t at, V16 (&x)[8]) {
  const DF d;
  const D16 d16;
  const hn::Repartition<double, DF> dd;
  // 128-bit block n of vector i: key 4 n + i.
  const VF a = hn::BitCast(d, LoadQuads<4 * kLanes>(row, at));
  const VF b = hn::BitCast(d, LoadQuads<4 * kLanes>(row + 1, at));
  const VF c = hn::BitCast(d, LoadQuads<4 * kLanes>(row + 2, at));
  const VF e = hn::BitCast(d, LoadQuads<4 * kLanes>(row + 3, at));
  const auto ab0 = hn::BitCast(dd, hn::InterleaveLower(d, a, b));
  const auto ab2 = hn::BitCast(dd, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(dd, hn::InterleaveLower(d, c, e));
  const auto ce2 = hn::BitCast(dd, hn::InterleaveUpper(d, c, e));
  const V16 word[4] = {hn::BitCast(d16, hn::InterleaveLower(dd, ab0, ce0)),
                       hn::BitCast(d16, hn::InterleaveUpper(dd, ab0, ce0)),
                       hn::BitCast(d16, hn::InterleaveLower(dd, ab2, ce2)),
                       hn::BitCast(d16, hn::InterleaveUpper(dd, ab2, ce2))};
  REGARD_UNROLL
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = hn::ShiftRight<8>(hn::ShiftLeft<8>(word[i]));
    x[2 * i + 1] = hn::ShiftRight<8>(word[i]);
  }
}

struct LevelQueries {
  const int16_t* level;     // [R][blocks][32]
  const float *step, *sum;  // [R][blocks]
};

// Of the `keys` rows that follow those from `first` on: their lines of block b, sixteen calls a
// block. Fetched all at once they would wait for each other.
HWY_INLINE void FetchPart(const Ahead& next, int b, int blocks, int first, int keys, int part) {
  for (int line = b; line < next.lines; line += blocks) {
    for (int j = part * keys / 16; j < (part + 1) * keys / 16; ++j) next.Fetch(first + j, line);
  }
}

// s[R][kKeys] = q k^T. Two vectors of keys share each broadcast word of a query where the registers
// allow: a load broadcast to 512 bits starts less than once a cycle.
template <int R, bool kDot>
HWY_NOINLINE void DotLevels(const LevelQueries& q, const LevelRows& k, int keys, const Ahead& next,
                            float* HWY_RESTRICT s) {
  const DF d;
  const DI di;
  constexpr int G = kLanes == 16 ? 2 : 1;
  for (int j = 0; j < keys; j += G * kLanes) {
    for (int64_t b = 0; b < k.blocks; ++b) {
      VI sum[R][G];
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        REGARD_UNROLL
        for (int g = 0; g < G; ++g) sum[r][g] = hn::Zero(di);
      }
      for (int half = 0; half < 2; ++half) {
        V16 x[G][8];
        REGARD_UNROLL
        for (int g = 0; g < G; ++g) {
          TransposeLevels(k.row + j + g * kLanes, b * k.stride + half * 16, x[g]);
        }
        const int16_t* word = q.level + b * 32 + half * 16;
        // Rows innermost: R * G chains of sums are under way at once.
        REGARD_UNROLL
        for (int i = 0; i < 8; ++i) {
          FetchPart(next, int(b), int(k.blocks), j, G * kLanes, half * 8 + i);
          REGARD_UNROLL
          for (int r = 0; r < R; ++r) {
            int32_t pair;
            std::memcpy(&pair, word + r * k.blocks * 32 + 2 * i, 4);
            const V16 w = hn::BitCast(D16(), hn::Set(di, pair));
            REGARD_UNROLL
            for (int g = 0; g < G; ++g) sum[r][g] = AddPairs<kDot>(x[g][i], w, sum[r][g]);
          }
        }
      }
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) {
        const int64_t at = b * kKeys + j + g * kLanes;
        const VF step = hn::Load(d, k.step + at);
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) {
          float* to = s + r * kKeys + j + g * kLanes;
          const int64_t block = r * k.blocks + b;
          VF total = b == 0 ? hn::Zero(d) : hn::Load(d, to);
          const VF scale = hn::Mul(step, hn::Set(d, q.step[block]));
          total = hn::MulAdd(hn::ConvertTo(d, sum[r][g]), scale, total);
          if (k.lows) {
            total = hn::MulAdd(hn::Load(d, k.low + at), hn::Set(d, q.sum[block]), total);
          }
          hn::Store(total, d, to);
        }
      }
    }
  }
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

// o[r][block] += w_step * sum_j w[r][j] level[j], for one block of 32 channels. Channels lie in o
// as InterleaveLower and InterleaveUpper leave them: see UnmixChannels. w: [R][kKeys]; even `keys`.
template <int R, bool kDot>
HWY_INLINE void AddLevels(const int16_t* HWY_RESTRICT w, const float* w_step, const float* lows,
                          const LevelRows& v, int64_t b, int keys, const Ahead& next,
                          float* HWY_RESTRICT o, int64_t width) {
  const DF d;
  const DI di;
  const D16 d16;
  constexpr int kParts = 16 / kLanes;  // vectors of 16-bit levels a block
  VI sum[R][kParts][2];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < kParts; ++n) sum[r][n][0] = sum[r][n][1] = hn::Zero(di);
  }
  const int64_t at = b * v.stride;
  for (int j = 0; j < keys; j += 2) {
    for (int line = int(b); line < next.lines; line += int(v.blocks)) {
      next.Fetch(j, line);
      next.Fetch(j + 1, line);
    }
    V16 pair[kParts][2];
    REGARD_UNROLL
    for (int n = 0; n < kParts; ++n) {
      const V16 a = LoadLevels(v.row[j] + at, n), c = LoadLevels(v.row[j + 1] + at, n);
      pair[n][0] = hn::InterleaveLower(d16, a, c);
      pair[n][1] = hn::InterleaveUpper(d16, a, c);
    }
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      int32_t word;
      std::memcpy(&word, w + r * kKeys + j, 4);
      const V16 weight = hn::BitCast(d16, hn::Set(di, word));
      REGARD_UNROLL
      for (int n = 0; n < kParts; ++n) {
        sum[r][n][0] = AddPairs<kDot>(pair[n][0], weight, sum[r][n][0]);
        sum[r][n][1] = AddPairs<kDot>(pair[n][1], weight, sum[r][n][1]);
      }
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    const VF step = hn::Set(d, w_step[r]), low = hn::Set(d, lows[r]);
    REGARD_UNROLL
    for (int n = 0; n < 2 * kParts; ++n) {
      float* to = o + r * width + n * kLanes;
      const VF old = hn::Add(hn::Load(d, to), low);
      hn::Store(hn::MulAdd(hn::ConvertTo(d, sum[r][n / 2][n % 2]), step, old), d, to);
    }
  }
}

// o[R][width] += p v. p: [R][kKeys] of weights, 0 past the tile's keys up to a vector; scaled here.
// scratch: [R][kKeys] 16-bit levels.
template <int R, bool kDot>
HWY_NOINLINE void AddLevelRows(float* p, const LevelRows& v, int keys, const Ahead& next,
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
    AddLevels<R, kDot>(scratch, w_step, lows, v, b, round_up(keys, 2), next, o + b * 32, width);
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
