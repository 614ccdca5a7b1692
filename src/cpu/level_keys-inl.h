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
  const int32_t* word;      // [R][blocks][16]
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

// One block of G * kLanes keys against R query rows.
template <int R, int G, bool kDot>
struct BlockSums {
  VI first[R][G], second[R][G];

  HWY_INLINE BlockSums() {
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) first[r][g] = second[r][g] = hn::Zero(DI());
    }
  }

  // Channels `half` * 16 on, as unsigned levels. words: of the block, [8][2] for each row.
  HWY_INLINE void Add(const V16 (&x)[G][4], const int32_t* HWY_RESTRICT words, int64_t row_stride,
                      int half, const char* const* later, int64_t b, bool fetch) {
    constexpr int kPart = G * kLanes / 8;  // rows fetched a quad
    REGARD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int quad = half * 4 + i;
      HWY_FENCE;
      FetchBlock<kPart>(later + quad * kPart, b, fetch);
      Quads quads[G];
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) quads[g] = Split<kDot>(x[g][i]);
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) {
        const int32_t* word = words + r * row_stride + quad * 2;
        REGARD_UNROLL
        for (int g = 0; g < G; ++g) {
          first[r][g] = AddQuads<kDot>(quads[g].first, word[0], first[r][g]);
          second[r][g] = AddQuads<kDot>(quads[g].second, word[1], second[r][g]);
        }
      }
    }
  }

  // Both halves of nibbles, or one half of bytes after the other.
  template <bool kNibbles>
  HWY_INLINE void AddBlock(const char* const* row, int64_t at, const int32_t* HWY_RESTRICT words,
                           int64_t row_stride, const char* const* later, int64_t b, bool fetch) {
    const D16 d;
    const hn::RebindToUnsigned<D16> du;
    V16 x[G][4];
    if constexpr (kNibbles) {
      V16 upper[G][4];
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) {
        HWY_FENCE;  // or GCC loads all addresses first, and spills them
        TransposeQuads(row + g * kLanes, at, x[g]);
        REGARD_UNROLL
        for (int i = 0; i < 4; ++i) {
          const V16 shifted = hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(du, x[g][i])));
          upper[g][i] = hn::And(shifted, hn::Set(d, 0x0f0f));
          x[g][i] = hn::And(x[g][i], hn::Set(d, 0x0f0f));
        }
      }
      Add(x, words, row_stride, 0, later, b, fetch);
      Add(upper, words, row_stride, 1, later, b, fetch);
      return;
    }
    _Pragma("GCC unroll 1") for (int half = 0; half < 2; ++half) {
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) {
        HWY_FENCE;
        TransposeQuads(row + g * kLanes, at + half * 16, x[g]);
        REGARD_UNROLL
        for (int i = 0; i < 4; ++i) x[g][i] = hn::Xor(x[g][i], hn::Set(d, int16_t(0x8080)));
      }
      Add(x, words, row_stride, half, later, b, fetch);
    }
  }
};

// s[R][kKeys] = q k^T. Two vectors of keys share each broadcast word of a query where the registers
// allow: a load broadcast to 512 bits starts less than once a cycle.
template <int R, bool kDot, bool kNibbles>
HWY_NOINLINE void DotLevels(const LevelQueries& queries, const LevelRows& k, int keys,
                            const Ahead& ahead, float* HWY_RESTRICT s) {
  const DF d;
  constexpr int G = kLanes == 16 ? 2 : 1;
  const LevelQueries q = queries;
  const Ahead next = ahead;
  const int64_t blocks = k.blocks;
  for (int64_t j = 0; j < keys; j += G * kLanes) {
    for (int64_t b = 0; b < blocks; ++b) {
      BlockSums<R, G, kDot> sums;
      sums.template AddBlock<kNibbles>(k.row + j, b * k.stride, q.word + b * 16, blocks * 16,
                                       next.row + j, b, b < next.lines);
      REGARD_UNROLL
      for (int g = 0; g < G; ++g) {
        const int64_t at = b * kKeys + j + g * kLanes;
        const VF step = hn::Load(d, k.step + at);
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) {
          float* to = s + r * kKeys + j + g * kLanes;
          const int64_t block = r * blocks + b;
          const VI sum = hn::Sub(Join<kDot>(sums.first[r][g], sums.second[r][g]),
                                 hn::Set(DI(), q.zero[block]));
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
