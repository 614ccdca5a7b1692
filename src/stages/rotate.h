// Rotary embedding. Layer: stages. Nobody but the bodies of stages includes this.
#pragma once
#include <cmath>
#include <cstdint>

namespace regard {

// Turned by `position` turns of base^(-2c / n), channels c and c + n / 2 paired.
inline void rotate(float* x, int64_t n, double position, double base) {
  for (int64_t c = 0; c < n / 2; ++c) {
    const double angle = position * std::pow(base, -2.0 * double(c) / double(n));
    const double cosine = std::cos(angle), sine = std::sin(angle), a = x[c], b = x[c + n / 2];
    x[c] = float(a * cosine - b * sine);
    x[c + n / 2] = float(b * cosine + a * sine);
  }
}

}  // namespace regard
