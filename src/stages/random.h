// Random numbers that are a function of their place: the same on every machine, in any order.
// Layer: stages.
#pragma once
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace regard {

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one step of the generator at state x.
inline uint64_t split_mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// 64 bits for a place of three coordinates; coordinates may be negative.
inline uint64_t random_bits(int64_t seed, int64_t a, int64_t b, int64_t c) {
  uint64_t x = split_mix(uint64_t(seed));
  for (const int64_t at : {a, b, c}) x = split_mix(x + uint64_t(at));
  return x;
}

// In [0, 1), a multiple of 2^-24: exact as float and as double.
inline double random_uniform(int64_t seed, int64_t a, int64_t b, int64_t c) {
  return double(random_bits(seed, a, b, c) >> 40) * 0x1p-24;
}

// Standard normal (Box and Muller, 1958), from the uniforms at c = 2 n and 2 n + 1.
inline double random_normal(int64_t seed, int64_t a, int64_t b, int64_t n) {
  const double u = 1 - random_uniform(seed, a, b, 2 * n), v = random_uniform(seed, a, b, 2 * n + 1);
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}

}  // namespace regard
