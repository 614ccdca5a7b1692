// Numeric int16 at decode: a quantised cache's own levels against queries and weights of 16 bits.
// Here: where a tile's levels lie. Their products are in level_keys-inl.h and level_values-inl.h.
// Layer: cpu (per target).
//
// A block of 32 channels is x = step * level + low, with |level| <= 128. Products with 16 bits are
// added up in 32, which is exact: 32 channels or 64 keys of them stay below 2^29.
//
//   score   += q_step step sum(q_level level) + low sum(q)       a block of 32 channels at a time
//   o[c]    += w_step sum(w_level level)      + sum(p low)       a tile of 64 keys at a time
//
// where q = q_step * q_level (a step for each row), and p * step = w_step * w_level (a step for
// each row, tile and block): both are rounded at 2^-16 of their largest.
//
// Levels are multiplied as unsigned bytes, four to a word (of channels in K, of keys in V), offset
// by kOffset: bytes as they are, nibbles in the upper half of a byte, so sixteen times too large.
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

// Levels of a tile's keys: block b of key j lies at row[j] + skip + b * stride, 32 bytes, or 16
// whose lower nibbles come first.
struct LevelRows {
  const char* const* row;
  int64_t skip = 0, stride = 32, blocks = 0;
  const float *step, *low;  // [blocks][kKeys]
  bool lows = false;        // any type with a minimum
  const char* spread[kKeys];
};

#if REGARD_LEVELS
inline constexpr int kMaxBlocks = 576 / 32;
using D16 = hn::Repartition<int16_t, DF>;
using V16 = hn::Vec<D16>;
using VI = hn::Vec<DI>;

// Nibbles are read as they are, other types with less than eight bits are spread out before.
constexpr bool Nibbles(DType t) { return t == DType::q4_0 || t == DType::q4_1; }
// What is too much in a level as it is multiplied: 128 but for nibbles that are not signed.
constexpr int LevelOffset(DType t) { return t == DType::q4_1 ? 0 : 128; }
inline constexpr float kNibbleUnit = 1.0f / 16;

// The f16 steps at row[j] + at + b * stride of eight keys, for N blocks: to[b][kKeys]. What is
// added to `poison` is 0 where all are finite.
template <int N>
HWY_INLINE void LoadSteps(const char* const* row, int64_t at, int64_t stride, float* to,
                          hn::Vec<hn::CappedTag<float, 8> >* poison) {
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  __m128i half[N];
  const auto put = [&](auto lane) HWY_ATTR {
    const char* src = row[lane()] + at;
    REGARD_UNROLL
    for (int b = 0; b < N; ++b) {
      int16_t bits;
      std::memcpy(&bits, src + b * stride, 2);
      half[b] = lane() == 0 ? _mm_cvtsi32_si128(bits) : _mm_insert_epi16(half[b], bits, lane());
    }
  };
  [&]<int... kLane>(std::integer_sequence<int, kLane...>) HWY_ATTR {
    (put(std::integral_constant<int, kLane>()), ...);
  }
  (std::make_integer_sequence<int, 8>());
  REGARD_UNROLL
  for (int b = 0; b < N; ++b) {
    const auto bits = hn::Vec<hn::RebindToSigned<decltype(d16)> >{half[b]};
    const auto step = hn::PromoteTo(d, hn::BitCast(d16, bits));
    hn::Store(step, d, to + b * kKeys);
    *poison = hn::MulAdd(step, hn::Zero(d), *poison);
  }
}

// Finds the levels of one tile's rows, which repeat the last past its keys. buffer: for types that
// are spread out. steps, lows: [blocks][kKeys]. Returns whether all of those are finite.
template <DType T>
HWY_NOINLINE bool FindLevels(const char* const* row, int keys, int64_t blocks, char* buffer,
                             float* steps, float* lows, LevelRows* out) {
  using B = QuantBlock<T>;
  constexpr bool kInPlace = T == DType::q8_0 || Nibbles(T);
  const hn::CappedTag<float, 8> d;
  for (int j = 0; j < kKeys && !kInPlace; ++j) {
    out->spread[j] = buffer + std::min(j, keys - 1) * blocks * 32;
    for (int64_t b = 0; b < blocks && j < keys; ++b) {
      ReadLevels<T>(row[j] + b * B::kBytes,
                    reinterpret_cast<int8_t*>(buffer + (j * blocks + b) * 32));
    }
  }
  auto poison = hn::Zero(d);
  for (int j = 0; j < round_up(keys, kLanes); j += 8) {  // whole vectors are read
    const auto load = [&](auto n, int64_t b) HWY_ATTR {
      const int64_t at = b * B::kBytes, to = b * kKeys + j;
      LoadSteps<n()>(row + j, at, B::kBytes, steps + to, &poison);
      if constexpr (B::kMin) LoadSteps<n()>(row + j, at + 2, B::kBytes, lows + to, &poison);
    };
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4) load(std::integral_constant<int, 4>(), b);
    for (; b < blocks; ++b) load(std::integral_constant<int, 1>(), b);
  }
  out->row = kInPlace ? row : out->spread;
  out->skip = !kInPlace ? 0 : B::kMin ? 4 : 2;
  out->stride = kInPlace ? B::kBytes : 32;
  out->blocks = blocks;
  out->step = steps;
  out->low = lows;
  out->lows = B::kMin;
  return hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
}

// sum + the products of four unsigned bytes with four signed ones (kDot), or of pairs of 16 bits.
// Highway 1.0.3 has no target for VNNI, and a function of another target would not be inlined here.
template <bool kDot>
HWY_INLINE VI AddQuads(V16 x, V16 w, VI sum) {
#if REGARD_DOT && HWY_MAX_BYTES == 64
  if constexpr (kDot) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(w.raw));
    return sum;
  }
#endif
  VI unused = hn::Zero(DI());
  return hn::Add(hn::ReorderWidenMulAccumulate(DI(), x, w, sum, unused), unused);
}

// Quads of levels in two forms, one for each of two words of four 16-bit factors: their upper and
// their lower bytes, both signed (kDot), or factors 0 and 2, then 1 and 3.
struct Quads {
  V16 first, second;
};
template <bool kDot>
HWY_INLINE Quads Split(V16 x) {
  if constexpr (kDot) return {x, x};
  const auto u = hn::BitCast(hn::RebindToUnsigned<D16>(), x);
  return {hn::And(x, hn::Set(D16(), 0xff)), hn::BitCast(D16(), hn::ShiftRight<8>(u))};
}
// Sums of the first words as sums of both begin.
template <bool kDot>
HWY_INLINE VI Join(VI first) {
  return kDot ? hn::ShiftLeft<8>(first) : first;
}
// A factor whose both bytes are signed.
inline constexpr float kMostFactor = 127 * 256 + 127;

// The lower or the upper nibbles of bytes, in the upper half of theirs.
template <bool kUpper>
HWY_INLINE V16 Nibble(V16 x) {
  const D16 d;
  if constexpr (!kUpper) x = hn::ShiftLeft<4>(x);
  return hn::And(x, hn::Set(d, int16_t(0xf0f0)));
}

// While block b of N keys is read: the line of as many later rows that falls to it.
template <int N>
HWY_INLINE void FetchBlock(const char* const* later, int64_t b, bool fetch) {
  if (!fetch) return;
  REGARD_UNROLL
  for (int n = 0; n < N; ++n) __builtin_prefetch(later[n] + b * 64, 0, 2);
}
#endif  // REGARD_LEVELS

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
