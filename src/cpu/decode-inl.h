// Rows of any element type to f32, a vector at a time. Layer: cpu (per target).
#if defined(REGARD_CPU_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_DECODE_INL_H_
#undef REGARD_CPU_DECODE_INL_H_
#else
#define REGARD_CPU_DECODE_INL_H_
#endif

#include <cstring>

#include "core/quant.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// Decodes n contiguous elements at src, which need not be aligned. Writes whole vectors: dst is
// aligned and holds n rounded up to a vector, or to a block of 32; what lies past n is finite.
using DecodeFn = void (*)(const char* src, int64_t n, float* dst);

inline VF Widen(const char* p, std::integral_constant<DType, DType::f32>) {
  return hn::LoadU(DF(), reinterpret_cast<const float*>(p));
}

#if HWY_TARGET == HWY_SCALAR
inline VF Widen(const char* p, std::integral_constant<DType, DType::f16>) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return hn::Set(DF(), f16_to_f32(h));
}
inline VF Widen(const char* p, std::integral_constant<DType, DType::bf16>) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return hn::Set(DF(), bf16_to_f32(h));
}
#else
HWY_INLINE VF Widen(const char* p, std::integral_constant<DType, DType::f16>) {
  const hn::Rebind<hwy::float16_t, DF> half;
  return hn::PromoteTo(DF(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
HWY_INLINE VF Widen(const char* p, std::integral_constant<DType, DType::bf16>) {
  const hn::Rebind<hwy::bfloat16_t, DF> half;
  return hn::PromoteTo(DF(), hn::LoadU(half, reinterpret_cast<const hwy::bfloat16_t*>(p)));
}
#endif

template <DType T>
HWY_NOINLINE void DecodePlain(const char* src, int64_t n, float* dst) {
  constexpr int64_t kBytes = T == DType::f32 ? 4 : 2;
  const std::integral_constant<DType, T> type;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::Store(Widen(src + i * kBytes, type), DF(), dst + i);
  const int64_t left = n % kLanes;
  if (left == 0) return;
  char rest[kLanes * 4] = {};
  std::memcpy(rest, src + i * kBytes, left * kBytes);
  hn::Store(Widen(rest, type), DF(), dst + i);
}

// Shape of a quantised block: f16 step, f16 minimum (kMin), 32 fifth bits (kFive), levels.
template <DType T>
struct QuantBlock {
  static constexpr bool kMin = T == DType::q4_1 || T == DType::q5_1;
  static constexpr bool kFive = T == DType::q5_0 || T == DType::q5_1;
  static constexpr int kBytes = 2 + (kMin ? 2 : 0) + (kFive ? 4 : 0) + (T == DType::q8_0 ? 32 : 16);
};

#if HWY_TARGET != HWY_SCALAR
// An f16 in every lane.
HWY_INLINE VF Half(uint16_t bits) {
  const hn::Rebind<uint16_t, DF> u16;
  const hn::Rebind<hwy::float16_t, DF> f16;
  return hn::PromoteTo(DF(), hn::BitCast(f16, hn::Set(u16, bits)));
}

// The 32 levels of one block, signed except in the types with a minimum: f(16 levels), twice.
template <DType T, class F>
HWY_INLINE void WithLevels(const char* src, const F& f) {
  using B = QuantBlock<T>;
  const hn::Full128<int8_t> d8;
  const hn::Full128<uint8_t> u8;
  if constexpr (T == DType::q8_0) {
    f(hn::LoadU(d8, reinterpret_cast<const int8_t*>(src + 2)), 0);
    f(hn::LoadU(d8, reinterpret_cast<const int8_t*>(src + 18)), 16);
  } else {
    const auto packed = hn::LoadU(u8, reinterpret_cast<const uint8_t*>(src + B::kBytes - 16));
    auto low = hn::And(packed, hn::Set(u8, 15)), high = hn::ShiftRight<4>(packed);
    if constexpr (B::kFive) {
      // Byte j of `spread` is the byte of the fifth bits that holds bit j.
      alignas(16) static constexpr uint8_t kByte[16] = {0, 0, 0, 0, 0, 0, 0, 0,
                                                        1, 1, 1, 1, 1, 1, 1, 1};
      alignas(16) static constexpr uint8_t kBit[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                                       1, 2, 4, 8, 16, 32, 64, 128};
      uint32_t fifth;
      std::memcpy(&fifth, src + (B::kMin ? 4 : 2), 4);
      const auto bits = hn::BitCast(u8, hn::Set(hn::Full128<uint32_t>(), fifth));
      const auto bit = hn::Load(u8, kBit);
      const auto index = hn::Load(u8, kByte), sixteen = hn::Set(u8, 16);
      const auto first = hn::TableLookupBytes(bits, index);
      const auto second = hn::TableLookupBytes(bits, hn::Add(index, hn::Set(u8, 2)));
      low = hn::Or(low, hn::IfThenElseZero(hn::TestBit(first, bit), sixteen));
      high = hn::Or(high, hn::IfThenElseZero(hn::TestBit(second, bit), sixteen));
    }
    if constexpr (T == DType::iq4_nl) {
      const auto table = hn::LoadU(d8, kIq4NlLevels);
      f(hn::TableLookupBytes(table, hn::BitCast(d8, low)), 0);
      f(hn::TableLookupBytes(table, hn::BitCast(d8, high)), 16);
    } else {
      const auto zero = hn::Set(d8, T == DType::q4_0 ? 8 : T == DType::q5_0 ? 16 : 0);
      f(hn::Sub(hn::BitCast(d8, low), zero), 0);
      f(hn::Sub(hn::BitCast(d8, high), zero), 16);
    }
  }
}

// The same, stored. level: aligned.
template <DType T>
HWY_INLINE void ReadLevels(const char* src, int8_t* level) {
  WithLevels<T>(src,
                [&](auto x, int at) HWY_ATTR { hn::Store(x, hn::Full128<int8_t>(), level + at); });
}
#endif

// Quantised blocks. On the scalar target one block at a time in plain C.
template <DType T>
HWY_NOINLINE void DecodeQuant(const char* src, int64_t n, float* dst) {
  using B = QuantBlock<T>;
  for (int64_t i = 0; i < n; i += 32, src += B::kBytes, dst += 32) {
#if HWY_TARGET == HWY_SCALAR
    decode_block(T, src, dst);
#else
    const DF d;
    const DI di;
    uint16_t half[2];
    std::memcpy(half, src, B::kMin ? 4 : 2);
    const VF scale = Half(half[0]), min = B::kMin ? Half(half[1]) : hn::Zero(d);
    const auto put = [&](auto level, float* to) HWY_ATTR {  // as many levels as lanes
      const VF x = hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di, level)), scale);
      hn::Store(B::kMin ? hn::Add(x, min) : x, d, to);
    };
    WithLevels<T>(src, [&](auto level, int at) HWY_ATTR {
      if constexpr (kLanes == 16) {
        put(level, dst + at);
      } else {
        const hn::Half<hn::Full128<int8_t> > d64;
        put(hn::LowerHalf(d64, level), dst + at);
        put(hn::UpperHalf(d64, level), dst + at + kLanes);
      }
    });
#endif
  }
}

inline DecodeFn Decoder(DType t) {
  switch (t) {
    case DType::f32:
      return DecodePlain<DType::f32>;
    case DType::f16:
      return DecodePlain<DType::f16>;
    case DType::bf16:
      return DecodePlain<DType::bf16>;
    case DType::q8_0:
      return DecodeQuant<DType::q8_0>;
    case DType::q4_0:
      return DecodeQuant<DType::q4_0>;
    case DType::q4_1:
      return DecodeQuant<DType::q4_1>;
    case DType::q5_0:
      return DecodeQuant<DType::q5_0>;
    case DType::q5_1:
      return DecodeQuant<DType::q5_1>;
    case DType::iq4_nl:
      return DecodeQuant<DType::iq4_nl>;
    default:
      return nullptr;  // refused before
  }
}

// Calls f with the type of a plain row as a constant.
template <class F>
HWY_INLINE auto WithPlainType(DType t, const F& f) {
  switch (t) {
    case DType::f16:
      return f(std::integral_constant<DType, DType::f16>());
    case DType::bf16:
      return f(std::integral_constant<DType, DType::bf16>());
    default:
      return f(std::integral_constant<DType, DType::f32>());
  }
}

// The same of a quantised row.
template <class F>
HWY_INLINE auto WithBlockType(DType t, const F& f) {
  switch (t) {
    case DType::q4_0:
      return f(std::integral_constant<DType, DType::q4_0>());
    case DType::q4_1:
      return f(std::integral_constant<DType, DType::q4_1>());
    case DType::q5_0:
      return f(std::integral_constant<DType, DType::q5_0>());
    case DType::q5_1:
      return f(std::integral_constant<DType, DType::q5_1>());
    case DType::iq4_nl:
      return f(std::integral_constant<DType, DType::iq4_nl>());
    default:
      return f(std::integral_constant<DType, DType::q8_0>());
  }
}

// Reads rows of a view, whatever its last stride.
class Rows {
 public:
  explicit Rows(const View& v)
      : v_(v),
        decode_(Decoder(v.dtype)),
        bytes_(v.size[3] / info(v.dtype).block * info(v.dtype).bytes),
        dense_(info(v.dtype).block > 1 || v.size[3] == 1 || v.stride[3] == info(v.dtype).bytes) {}
  HWY_INLINE void Read(int64_t a, int64_t b, int64_t c, float* dst) const {
    if (dense_) return decode_(v_.at(a, b, c), v_.size[3], dst);
    read_row(v_, a, b, c, dst);
    for (int64_t i = v_.size[3]; i % kLanes != 0; ++i) dst[i] = 0;
  }
  int64_t size() const { return v_.size[3]; }
  int64_t bytes() const { return bytes_; }
  const View& view() const { return v_; }
  bool dense() const { return dense_; }  // a row's bytes are neighbours
  // f32, f16 or bf16 with neighbouring channels: can be widened straight from memory.
  bool plain() const { return dense_ && info(v_.dtype).block == 1; }

 private:
  const View& v_;
  DecodeFn decode_;
  int64_t bytes_;  // of a row
  bool dense_;
};

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
