// Numeric int16: Q K^T of 16-bit queries and a cache's own levels. Layer: cpu (per target).
//
// Bytes of kLanes keys are transposed four channels at a time: a lane is a key, its word four
// levels, unsigned (kZero is taken off the exact sum afterwards). VNNI multiplies them by the upper
// and the lower bytes of four queries, others by 16-bit queries two at a time: the same sums.
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

inline constexpr float kMostQuery = 32639;  // 127 * 256 + 127: both bytes are signed

// One row of queries. word: two a quad of channels; zero: what the levels' offset adds up to.
struct LevelQueries {
  const uint32_t* word;     // [R][blocks][16]
  const int32_t* zero;      // [R][blocks]
  const float *step, *sum;  // [R][blocks]
};

// False: not finite. offset: of the unsigned levels.
inline bool QuantizeRow(const float* q, int64_t blocks, int offset, bool dot, uint32_t* word,
                        int32_t* zero, float* step, float* sum) {
  const DF d;
  const DI di;
  bool finite = true;
  for (int64_t b = 0; b < blocks; ++b, q += 32) {
    float most = 0, total = 0;
    for (int i = 0; i < 32; ++i) {
      finite &= std::isfinite(q[i]);
      most = std::max(most, std::abs(q[i]));
      total += q[i];
    }
    step[b] = most / kMostQuery;
    sum[b] = total;
    // A block of such tiny numbers counts as 0: the inverse has to be finite.
    const VF inverse = hn::Set(d, most > 1e-30f ? kMostQuery / most : 0);
    alignas(64) int32_t level[32];
    for (int i = 0; i < 32; i += kLanes) {
      hn::Store(hn::NearestInt(hn::Mul(hn::LoadU(d, q + i), inverse)), di, level + i);
    }
    zero[b] = 0;
    for (int i = 0; i < 32; i += 4, word += 2) {
      word[0] = word[1] = 0;
      for (int n = 0; n < 4; ++n) {
        const int32_t x = level[i + n];
        zero[b] += offset * x;
        if (dot) {
          word[0] |= uint32_t(uint8_t((x - int8_t(x)) >> 8)) << 8 * n;
          word[1] |= uint32_t(uint8_t(x)) << 8 * n;
        } else {  // channels 0 and 2, then 1 and 3
          word[n % 2] |= uint32_t(uint16_t(x)) << n / 2 * 16;
        }
      }
    }
  }
  return finite;
}

template <size_t N>
HWY_INLINE auto LoadQuads(const char* const* row, int64_t at) {
  const hn::CappedTag<uint8_t, N> d;
  if constexpr (N == 16) {
    return hn::LoadU(d, reinterpret_cast<const uint8_t*>(row[0] + at));
  } else {
    return hn::Combine(d, LoadQuads<N / 2>(row + N / 8, at), LoadQuads<N / 2>(row, at));
  }
}

// 16 bytes of kLanes keys: x[i] holds, for key `lane`, bytes 4 i to 4 i + 3.
HWY_INLINE void TransposeQuads(const char* const* row, int64_t at, V16 (&x)[4]) {
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
  x[0] = hn::BitCast(d16, hn::InterleaveLower(dd, ab0, ce0));
  x[1] = hn::BitCast(d16, hn::InterleaveUpper(dd, ab0, ce0));
  x[2] = hn::BitCast(d16, hn::InterleaveLower(dd, ab2, ce2));
  x[3] = hn::BitCast(d16, hn::InterleaveUpper(dd, ab2, ce2));
}

// sum + the products of four unsigned bytes with four signed ones (kDot), or of pairs of 16 bits.
// Highway 1.0.3 has no target for VNNI, and a function of another target would not be inlined here.
template <bool kDot>
HWY_INLINE VI AddQuads(V16 x, int32_t word, VI sum) {
  const V16 w = hn::BitCast(D16(), hn::Set(DI(), word));
#if REGARD_DOT && HWY_MAX_BYTES == 64
  if constexpr (kDot) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(w.raw));
    return sum;
  }
#endif
  VI unused = hn::Zero(DI());
  return hn::Add(hn::ReorderWidenMulAccumulate(DI(), x, w, sum, unused), unused);
}

// Quads of levels in two forms, one for each word of a query.
struct Quads {
  V16 first, second;
};
template <bool kDot>
HWY_INLINE Quads Split(V16 x) {
  if constexpr (kDot) return {x, x};
  const auto u = hn::BitCast(hn::RebindToUnsigned<D16>(), x);
  return {hn::And(x, hn::Set(D16(), 0xff)), hn::BitCast(D16(), hn::ShiftRight<8>(u))};
}
template <bool kDot>
HWY_INLINE VI Join(VI first, VI second) {
  return hn::Add(kDot ? hn::ShiftLeft<8>(first) : first, second);
}

// Channels `half` * 16 on, as unsigned levels. packed: both halves of a nibble type.
template <bool kNibbles>
HWY_INLINE void LoadHalf(const char* const* row, int64_t at, int half, V16 (&packed)[4],
                         V16 (&x)[4]) {
  const D16 d;
  const hn::RebindToUnsigned<D16> du;
  if constexpr (!kNibbles) {
    TransposeQuads(row, at + half * 16, x);
    REGARD_UNROLL
    for (int i = 0; i < 4; ++i) x[i] = hn::Xor(x[i], hn::Set(d, int16_t(0x8080)));
    return;
  }
  if (half == 0) TransposeQuads(row, at, packed);
  REGARD_UNROLL
  for (int i = 0; i < 4; ++i) {
    const V16 next = hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(du, packed[i])));
    x[i] = hn::And(half == 0 ? packed[i] : next, hn::Set(d, 0x0f0f));
  }
}

// s[R][kKeys] = q k^T. Two vectors of keys share each broadcast word of a query where the registers
// allow: a load broadcast to 512 bits starts less than once a cycle.
template <int R, bool kDot, bool kNibbles>
HWY_NOINLINE void DotLevels(const LevelQueries& q, const LevelRows& k, int keys, const Ahead& next,
                            float* HWY_RESTRICT s) {
  const DF d;
  const DI di;
  constexpr int G = kLanes == 16 ? 2 : 1;
  constexpr int kPart = G * kLanes / 8;  // rows fetched a quad
  const int blocks = int(k.blocks);
  for (int j = 0; j < keys; j += G * kLanes) {
    for (int b = 0; b < blocks; ++b) {
      VI first[R][G], second[R][G];
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        REGARD_UNROLL
        for (int g = 0; g < G; ++g) first[r][g] = second[r][g] = hn::Zero(di);
      }
      V16 packed[G][4];
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        V16 x[G][4];
        REGARD_UNROLL
        for (int g = 0; g < G; ++g)
          LoadHalf<kNibbles>(k.row + j + g * kLanes, b * k.stride, half, packed[g], x[g]);
        REGARD_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int quad = half * 4 + i;
          REGARD_UNROLL
          for (int n = 0; n < kPart; ++n) FetchBlock(next, j + quad * kPart + n, b, blocks);
          Quads quads[G];
          REGARD_UNROLL
          for (int g = 0; g < G; ++g) quads[g] = Split<kDot>(x[g][i]);
          REGARD_UNROLL
          for (int r = 0; r < R; ++r) {
            int32_t word[2];
            std::memcpy(word, q.word + (r * blocks + b) * 16 + quad * 2, 8);
            REGARD_UNROLL
            for (int g = 0; g < G; ++g) {
              first[r][g] = AddQuads<kDot>(quads[g].first, word[0], first[r][g]);
              second[r][g] = AddQuads<kDot>(quads[g].second, word[1], second[r][g]);
            }
          }
        }
      }
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) {
        const int64_t at = int64_t(b) * kKeys + j + g * kLanes;
        const VF step = hn::Load(d, k.step + at);
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) {
          float* to = s + r * kKeys + j + g * kLanes;
          const int block = r * blocks + b;
          const VI sum = hn::Sub(Join<kDot>(first[r][g], second[r][g]), hn::Set(di, q.zero[block]));
          VF total = b == 0 ? hn::Zero(d) : hn::Load(d, to);
          const VF scale = hn::Mul(step, hn::Set(d, q.step[block]));
          total = hn::MulAdd(hn::ConvertTo(d, sum), scale, total);
          if (k.lows) {
            total = hn::MulAdd(hn::Load(d, k.low + at), hn::Set(d, q.sum[block]), total);
          }
          hn::Store(total, d, to);
        }
      }
    }
  }
}

#endif  // REGARD_LEVELS
}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
