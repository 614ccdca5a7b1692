// exp(x) in operations that every machine rounds alike. Layer: algebra.
//
// Estimators choose by comparing sums of exponentials, so a CPU and a GPU agree to the bit on what
// they choose only where these have the same bits. libm's and the vendors' differ; here is one for
// both, and for every vector width: x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of
// exp(r) to r^7 / 7! (what is left out is below 6e-9), all in fused multiply-adds. Within 1.5 ulp.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "regard/partial.h"

namespace regard::exponential {

inline constexpr float kLog2e = 1.44269504f;
// ln 2 as a number of few bits, whose products with n are exact, and the rest.
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
inline constexpr float kSeries[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                    1.0f / 6,    0.5f,       1.0f,       1.0f};
// Below this the result is 0: it would be less than the least normal number.
inline constexpr float kLeast = -87.3f;
inline constexpr float kMost = 88.7f;  // above it infinity

// exp(x - n ln 2), n the whole number next to x / ln 2.
REGARD_HD inline float of_rest(float x, float n) {
  const float r = fmaf(n, -kLn2Low, fmaf(n, -kLn2High, x));
  float y = 1.0f / 5040;
  y = fmaf(y, r, 1.0f / 720);
  y = fmaf(y, r, 1.0f / 120);
  y = fmaf(y, r, 1.0f / 24);
  y = fmaf(y, r, 1.0f / 6);
  y = fmaf(y, r, 0.5f);
  y = fmaf(y, r, 1.0f);
  y = fmaf(y, r, 1.0f);
  return y;
}

// NaN gives NaN. Exponential() in src/stages/matrix.cc does the same to a vector.
REGARD_HD inline float of(float x) {
  if (x != x) return x;
  if (x < kLeast) return 0;
  if (x > kMost) return INFINITY;
  const float n = rintf(x * kLog2e);
  const float y = of_rest(x, n);
  const int half = int(n) >> 1, rest = int(n) - half;  // 2^n in two factors: n may be 128
  const uint32_t a = uint32_t(half + 127) << 23, b = uint32_t(rest + 127) << 23;
#if defined(__CUDA_ARCH__)
  return y * __uint_as_float(a) * __uint_as_float(b);
#else
  return y * std::bit_cast<float>(a) * std::bit_cast<float>(b);
#endif
}

}  // namespace regard::exponential
