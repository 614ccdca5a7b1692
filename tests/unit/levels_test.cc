// Levels against their definition (stages/levels.h), on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "cpu/cpu.h"
#include "stages/levels.h"
#include "stages/matrix.h"

namespace regard {
namespace {

struct Rows {
  Tensor x;
  std::vector<float> pairs, scale;
  int64_t width, step;  // a gap after each row shows what is written beyond it
  Rows(DType type, int64_t count, int64_t n) : x(make_tensor(type, {1, 1, count, n})) {
    std::mt19937 g{uint32_t(n)};
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count; ++i) {
      std::vector<float> row(static_cast<size_t>(n));
      for (float& f : row) f = normal(g) * (i % 3 == 2 ? 1e-3f : 1.0f);
      if (i % 5 == 1) row[i % n] = 40;  // one large channel: levels beyond 2048
      if (i == 3) row.assign(size_t(n), 0.0f);
      if (i == 4) row[n / 2] = std::numeric_limits<float>::quiet_NaN();
      if (i == 7) row[n - 1] = std::numeric_limits<float>::infinity();
      write_row(x.view, 0, 0, i, row.data());
    }
    width = matrix::level_pairs(n), step = width + 3;
    pairs.assign(size_t(count * step), -1), scale.assign(size_t(count * 2), -1);
    matrix::load_levels(x.view, 0, 0, 0, count, pairs.data(), step, scale.data(), 2);
  }
  // Every level of row i, in whatever order they lie; those of pair t are t and t + width.
  std::vector<int> levels(int64_t i) const {
    std::vector<int> out(size_t(2 * width));
    for (int64_t t = 0; t < width; ++t) {
      int16_t two[2];
      std::memcpy(two, &pairs[i * step + t], sizeof two);
      out[t] = two[0], out[t + width] = two[1];
    }
    return out;
  }
};

int level_of(double x, double length) {
  const float y = std::nearbyint(float(x) * (levels::kLength / float(length)));
  return std::abs(y) > levels::kExact ? 2 * int(std::nearbyint(y / 2)) : int(y);
}

TEST(Levels, AreTheirDefinition) {
  for (const std::string& target : cpu::targets()) {
    cpu::force_target(target);
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int64_t n : {1, 16, 20, 32, 33, 64, 80, 128}) {
        const int64_t count = 21;
        const Rows r(type, count, n);
        for (int64_t i = 0; i < count; ++i) {
          std::vector<float> row(static_cast<size_t>(n));
          read_row(r.x.view, 0, 0, i, row.data());
          double square = 0;
          for (float f : row) square += double(f) * f;
          std::vector<int> got = r.levels(i), want(got.size());
          const bool finite = std::isfinite(square), none = square == 0;
          for (int64_t c = 0; c < n && finite && !none; ++c)
            want[c] = level_of(row[c], std::sqrt(square));
          std::sort(got.begin(), got.end()), std::sort(want.begin(), want.end());
          for (size_t c = 0; c < got.size(); ++c)  // the length differs in its last bits
            EXPECT_LE(std::abs(got[c] - want[c]), std::abs(want[c]) > levels::kExact ? 2 : 1)
                << target << ' ' << n << ' ' << i;
          if (finite) {
            const double want_scale = std::sqrt(square) / levels::kLength;
            EXPECT_NEAR(r.scale[2 * i], want_scale, 4 * want_scale * 0x1p-23);
          } else {
            EXPECT_TRUE(std::isnan(r.scale[2 * i]));
          }
          EXPECT_EQ(r.scale[2 * i + 1], -1);
          for (int64_t gap = r.width; gap < r.step; ++gap) EXPECT_EQ(r.pairs[i * r.step + gap], -1);
        }
      }
  }
  cpu::force_target("");
}

// The sums are whole numbers: the scaled product is that of the levels in any order of channels.
TEST(Levels, ProductsAreExactOnEveryTarget) {
  const int64_t tokens = 3, rows = 13, n = 80;
  std::vector<float> first_levels;
  for (const std::string& target : cpu::targets()) {
    cpu::force_target(target);
    const Rows q(DType::f32, tokens * rows, n), k(DType::f16, tokens * matrix::kPanel, n);
    const int64_t width = q.width;
    std::vector<float> a(size_t(tokens * rows * width)), a_scale(size_t(tokens * rows));
    std::vector<matrix::Line> panel(size_t(tokens * width)), k_scale(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < tokens * rows; ++i) {
      std::memcpy(&a[i * width], &q.pairs[i * q.step], size_t(width) * sizeof(float));
      a_scale[i] = q.scale[2 * i];
    }
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t l = 0; l < matrix::kPanel; ++l) {
        const int64_t j = t * matrix::kPanel + l;
        k_scale[t].x[l] = k.scale[2 * j];
        for (int64_t c = 0; c < width; ++c) panel[t * width + c].x[l] = k.pairs[j * k.step + c];
      }
    std::vector<float> c(size_t(rows * matrix::kPanel));
    matrix::multiply_levels(a.data(), a_scale.data(), rows, tokens, width, panel.data(),
                            k_scale.data(), c.data(), matrix::kPanel);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t l = 0; l < matrix::kPanel; ++l) {
        float want = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          const auto x = q.levels(t * rows + i), y = k.levels(t * matrix::kPanel + l);
          int64_t sum = 0;
          for (size_t m = 0; m < x.size(); ++m) sum += int64_t(x[m]) * y[m];
          EXPECT_LT(std::abs(sum), int64_t(1) << 24);
          want = std::fma(float(sum), a_scale[t * rows + i] * k_scale[t].x[l], want);
        }
        const float got = c[i * matrix::kPanel + l];
        EXPECT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << target;
      }
    if (first_levels.empty()) first_levels = k.pairs;
    EXPECT_EQ(std::memcmp(first_levels.data(), k.pairs.data(), k.pairs.size() * sizeof(float)), 0);
  }
  cpu::force_target("");
}

}  // namespace
}  // namespace regard
