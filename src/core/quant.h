// ggml's quantised blocks: 32 elements behind one f16 scale d (and, in the _1 types, an f16
// minimum). Low nibbles hold elements 0..15, high nibbles 16..31. Layer: core.
#pragma once
#include <cstring>

#include "core/half.h"
#include "regard/view.h"

namespace regard {

// The 16 levels of iq4_nl (ggml's kvalues_iq4nl).
inline constexpr int8_t kIq4NlLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

// One block to 32 numbers.
inline void decode_block(DType type, const char* p, float* out) {
  const auto half_at = [p](int byte) {
    uint16_t h;
    std::memcpy(&h, p + byte, 2);
    return f16_to_f32(h);
  };
  const float d = half_at(0);
  if (type == DType::q8_0) {
    for (int i = 0; i < 32; ++i) out[i] = d * float(static_cast<signed char>(p[2 + i]));
    return;
  }
  const bool has_min = type == DType::q4_1 || type == DType::q5_1;
  const bool five = type == DType::q5_0 || type == DType::q5_1;
  const float min = has_min ? half_at(2) : 0;
  uint32_t high = 0;  // the fifth bits, element i at bit i
  if (five) std::memcpy(&high, p + (has_min ? 4 : 2), 4);
  const char* nibbles = p + 2 + (has_min ? 2 : 0) + (five ? 4 : 0);
  for (int i = 0; i < 32; ++i) {
    int level = i < 16 ? nibbles[i] & 15 : (nibbles[i - 16] >> 4) & 15;
    if (five) level |= int(high >> i & 1) << 4;
    switch (type) {
      case DType::q4_0:
        out[i] = d * float(level - 8);
        break;
      case DType::q5_0:
        out[i] = d * float(level - 16);
        break;
      case DType::iq4_nl:
        out[i] = d * float(kIq4NlLevels[level]);
        break;
      default:
        out[i] = d * float(level) + min;
        break;  // q4_1, q5_1
    }
  }
}

}  // namespace regard
