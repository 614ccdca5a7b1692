#include "stages/slopes.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "regard/status.h"

namespace regard {

std::vector<float> alibi_slopes(int64_t heads, double max_bias, SlopeRule rule) {
  const int64_t power =
      rule == SlopeRule::geometric ? heads : int64_t(std::bit_floor(uint64_t(heads)));
  std::vector<float> out;
  for (int64_t h = 0; h < heads; ++h) {
    const double exponent = h < power ? double(h + 1) / double(power)
                                      : (2.0 * double(h - power) + 1) / double(2 * power);
    out.push_back(float(std::exp2(-max_bias * exponent)));
  }
  return out;
}

std::vector<float> per_head(const char* what, int64_t heads, const Tensor& values) {
  const View& v = values.view;
  if (v.numel() != heads || info(v.dtype).block != 1)
    throw Error(
        fmt::format("{}: {}; accepted: {} numbers, one a query head", what, v.shape(), heads));
  std::vector<float> out, row(size_t(v.size[3]));
  for (int64_t a = 0; a < v.size[0]; ++a)
    for (int64_t b = 0; b < v.size[1]; ++b)
      for (int64_t c = 0; c < v.size[2]; ++c) {
        read_row(v, a, b, c, row.data());
        out.insert(out.end(), row.begin(), row.end());
      }
  return out;
}

std::vector<float> scaled(std::vector<float> x, double factor) {
  for (float& v : x) v = float(v * factor);
  return x;
}

}  // namespace regard
