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

// Levels of a tile's keys: block b of key j lies at row[j] + b * stride, 32 bytes, or 16 whose
// lower nibbles come first.
struct LevelRows {
  const char* row[kKeys];
  int64_t stride = 32, blocks = 0;
  const float *step, *low;  // [blocks][kKeys]
  bool lows = false;        // any type with a minimum
};

#if REGARD_LEVELS
inline constexpr int kMaxBlocks = 576 / 32;
using D16 = hn::Repartition<int16_t, DF>;
using V16 = hn::Vec<D16>;
using VI = hn::Vec<DI>;

// Nibbles are read as they are, other types with less than eight bits are spread out before.
constexpr bool Nibbles(DType t) { return t == DType::q4_0 || t == DType::q4_1; }
constexpr int NibbleZero(DType t) { return t == DType::q4_0 ? 8 : 0; }

// The 16 bits at row[j] + at of N keys.
template <size_t N>
HWY_INLINE auto LoadHalves(const char* const* row, int64_t at) {
  const hn::CappedTag<int16_t, N> d;
  if constexpr (N == 8) {
    const auto half = [&](int j) HWY_ATTR {
      int16_t bits;
      std::memcpy(&bits, row[j] + at, 2);
      return bits;
    };
    return hn::Vec<decltype(d)>{
        _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7))};
  } else {
    return hn::Combine(d, LoadHalves<N / 2>(row + N / 2, at), LoadHalves<N / 2>(row, at));
  }
}

// The same as f16 steps of kLanes keys.
HWY_INLINE VF LoadSteps(const char* const* row, int64_t at) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(DF(), hn::BitCast(d16, LoadHalves<kLanes>(row, at)));
}

// Finds the levels of one tile's rows, which repeat the last past its keys. buffer: for types that
// are spread out. steps, lows: [blocks][kKeys]. Returns whether all of those are finite.
template <DType T>
HWY_NOINLINE bool FindLevels(const char* const* row, int keys, int64_t blocks, char* buffer,
                             float* steps, float* lows, LevelRows* out) {
  using B = QuantBlock<T>;
  constexpr bool kInPlace = T == DType::q8_0 || Nibbles(T);
  const DF d;
  for (int j = 0; j < kKeys; ++j) {
    out->row[j] =
        kInPlace ? row[j] + (B::kMin ? 4 : 2) : buffer + std::min(j, keys - 1) * blocks * 32;
  }
  for (int j = 0; j < keys && !kInPlace; ++j) {
    for (int64_t b = 0; b < blocks; ++b) {
      ReadLevels<T>(row[j] + b * B::kBytes,
                    reinterpret_cast<int8_t*>(buffer + (j * blocks + b) * 32));
    }
  }
  VF poison = hn::Zero(d);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int j = 0; j < kKeys; j += kLanes) {
      const VF step = LoadSteps(row + j, b * B::kBytes);
      hn::Store(step, d, steps + b * kKeys + j);
      poison = hn::MulAdd(step, hn::Zero(d), poison);
      if constexpr (B::kMin) {
        const VF low = LoadSteps(row + j, b * B::kBytes + 2);
        hn::Store(low, d, lows + b * kKeys + j);
        poison = hn::MulAdd(low, hn::Zero(d), poison);
      }
    }
  }
  out->stride = kInPlace ? B::kBytes : 32;
  out->blocks = blocks;
  out->step = steps;
  out->low = lows;
  out->lows = B::kMin;
  return hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
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
