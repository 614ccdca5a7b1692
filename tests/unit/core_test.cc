// core: half types against their definition, views over odd memory.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/half.h"
#include "core/quant.h"
#include "regard/status.h"
#include "regard/view.h"

namespace regard {
namespace {

// IEEE 754 binary16 and bfloat16 from their fields.
double value_of(uint16_t h, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const int exponent = h >> mantissa_bits & ((1 << exponent_bits) - 1);
  const double mantissa = h & ((1 << mantissa_bits) - 1), unit = std::exp2(-mantissa_bits);
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * mantissa * unit * std::exp2(1 - bias);
  return sign * (1 + mantissa * unit) * std::exp2(exponent - bias);
}

TEST(Half, EveryValueReadsAsItsFieldsSay) {
  for (int h = 0; h < 65536; ++h) {
    const double f16 = value_of(uint16_t(h), 10, 15), bf16 = value_of(uint16_t(h), 7, 127);
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(uint16_t(h))));
    } else {
      ASSERT_EQ(f16_to_f32(uint16_t(h)), f16);
      ASSERT_EQ(f32_to_f16(f16_to_f32(uint16_t(h))), h);
    }
    if (!std::isnan(bf16)) {
      ASSERT_EQ(bf16_to_f32(uint16_t(h)), bf16);
      ASSERT_EQ(f32_to_bf16(bf16_to_f32(uint16_t(h))), h);
    }
  }
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Half, RoundsToTheNearestTiesToEven) {
  std::mt19937 g(1);
  const auto nearest = [](double x, uint16_t below, auto read) {
    const double a = read(below), b = read(uint16_t(below + 1));
    if (x - a != b - x) return x - a < b - x ? below : uint16_t(below + 1);
    return below % 2 ? uint16_t(below + 1) : below;
  };
  for (int n = 0; n < 200000; ++n) {
    const uint16_t below = uint16_t(g() % 0x7bff);  // finite and positive, with a finite successor
    const float lo = f16_to_f32(below), hi = f16_to_f32(uint16_t(below + 1));
    const float x = n % 3 == 0 ? (lo + hi) / 2 : lo + (hi - lo) * float(g() % 1000) / 1000;
    ASSERT_EQ(f32_to_f16(x), nearest(x, below, f16_to_f32)) << x;
    ASSERT_EQ(f32_to_f16(-x), nearest(x, below, f16_to_f32) | 0x8000);
    const uint16_t b = uint16_t(g() % 0x7f7f);
    const float y =
        std::bit_cast<float>(uint32_t(b) << 16 | uint32_t(n % 3 == 0 ? 0x8000 : g() % 65536));
    ASSERT_EQ(f32_to_bf16(y), nearest(y, b, bf16_to_f32));
  }
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
}

TEST(Quant, BlocksDecodeAsTheirFieldsSay) {
  // d = 0.5 (0x3800), minimum = -2 (0xc000), levels 0..31 spread over the elements.
  for (DType t : {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl}) {
    unsigned char block[34] = {0x00, 0x38};
    const bool has_min = t == DType::q4_1 || t == DType::q5_1;
    const bool five = t == DType::q5_0 || t == DType::q5_1;
    int at = 2;
    if (has_min) block[3] = 0xc0, at = 4;
    uint32_t high = 0;
    std::vector<int> level(32);
    for (int i = 0; i < 32; ++i) {
      level[size_t(i)] = t == DType::q8_0 ? i * 7 - 100 : (i * 5 + 3) % (five ? 32 : 16);
      if (five) high |= uint32_t(level[size_t(i)] >> 4) << i;
    }
    if (five) std::memcpy(block + at, &high, 4), at += 4;
    for (int i = 0; i < 32; ++i) {
      if (t == DType::q8_0)
        block[at + i] = static_cast<unsigned char>(level[size_t(i)]);
      else if (i < 16)
        block[at + i] = (level[size_t(i)] & 15) | (level[size_t(i + 16)] & 15) << 4;
    }
    const int table[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    float out[32];
    decode_block(t, reinterpret_cast<const char*>(block), out);
    for (int i = 0; i < 32; ++i) {
      const int l = level[size_t(i)];
      const float want = t == DType::q4_0     ? 0.5f * float(l - 8)
                         : t == DType::q5_0   ? 0.5f * float(l - 16)
                         : t == DType::iq4_nl ? 0.5f * float(table[l])
                         : has_min            ? 0.5f * float(l) - 2
                                              : 0.5f * float(l);
      ASSERT_EQ(out[i], want) << info(t).name << " element " << i;
    }
  }
}

TEST(View, ReadsAndWritesThroughAnyStrides) {
  std::vector<char> memory(4096);
  View v{memory.data() + 1, DType::f32, Device::cpu, {2, 3, 4, 5}, {0, 0, 0, 0}};
  v.stride = {7, 1001, 29, 229};  // unaligned, not ordered; rows do not overlap
  v.size = {1, 2, 4, 3};
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t n = 0; n < 4; ++n) {
      const float row[3] = {float(h), float(n), float(h * 10 + n)};
      write_row(v, 0, h, n, row);
    }
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t n = 0; n < 4; ++n) {
      double row[3];
      read_row(v, 0, h, n, row);
      EXPECT_EQ(row[0], h);
      EXPECT_EQ(row[1], n);
      EXPECT_EQ(row[2], h * 10 + n);
    }
  const View tail = slice_tokens(v, 2, 2);
  float row[3];
  read_row(tail, 0, 1, 1, row);
  EXPECT_EQ(row[1], 3);
  EXPECT_THROW(slice_tokens(v, 3, 2), Error);
  EXPECT_THROW(parse_dtype("q6_K"), Error);
  EXPECT_EQ(v.shape(), "f32[1,2,4,3]");
}

}  // namespace
}  // namespace regard
