// Products with random directions. Layer: stages. Nobody but the bodies of stages includes this.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/matrix.h"
#include "stages/random.h"

namespace regard::order {

// `count` directions of `depth` standard normal numbers: random_normal(seed, stream, direction, n);
// or those given, [1, streams, count, depth].
class Directions {
 public:
  Directions(int64_t count, int64_t depth, int64_t seed, int64_t stream, int threads,
             const View& given = {})
      : count_(count), depth_(depth), lines_(size_t(matrix::panels(count) * depth)) {
    if (given && (given.size[0] != 1 || given.size[1] <= stream || given.size[2] != count ||
                  given.size[3] != depth || info(given.dtype).block != 1))
      throw Error(fmt::format("directions {}; accepted: [1,{} or more,{},{}]", given.shape(),
                              stream + 1, count, depth));
    parallel_for(matrix::panels(count), threads, [&](int64_t panel, int) {
      std::vector<float> rows(size_t(matrix::kPanel * depth));
      const int64_t first = panel * matrix::kPanel, live = std::min(matrix::kPanel, count - first);
      if (given) matrix::load_rows(given, 0, stream, first, live, rows.data());
      for (int64_t d = 0; d < live && !given; ++d)
        for (int64_t n = 0; n < depth; ++n)
          rows[d * depth + n] = float(random_normal(seed, stream, first + d, n));
      matrix::pack_panel(rows.data(), live, depth, &lines_[panel * depth]);
    });
  }

  // Calls f(b, h, token, dots[count]) for every token of every head.
  template <class F>
  void each(const View& x, int threads, const F& f) const {
    constexpr int64_t kRows = 64;
    const int64_t stride = matrix::row_stride(count_), parts = (x.size[2] + kRows - 1) / kRows;
    parallel_for(x.size[0] * x.size[1] * parts, threads, [&](int64_t item, int) {
      const int64_t h = item / parts % x.size[1], b = item / parts / x.size[1];
      const int64_t first = item % parts * kRows, live = std::min(kRows, x.size[2] - first);
      std::vector<float> rows(size_t(kRows * depth_)), dots(size_t(kRows * stride));
      matrix::load_rows(x, b, h, first, live, rows.data());
      for (int64_t panel = 0; panel < matrix::panels(count_); ++panel)
        matrix::multiply(rows.data(), live, depth_, &lines_[panel * depth_],
                         &dots[panel * matrix::kPanel], stride);
      for (int64_t i = 0; i < live; ++i) f(b, h, first + i, &dots[i * stride]);
    });
  }

 private:
  int64_t count_, depth_;
  std::vector<matrix::Line> lines_;
};

// Index of the first of n numbers that is x; n where none is.
inline int64_t index_of(const float* s, int64_t n, float x) {
  constexpr int64_t kPart = 16;
  int64_t c = 0;
  for (; c + kPart <= n; c += kPart) {
    int32_t any = 0;  // without a branch, so that it runs on vectors
    for (int64_t l = 0; l < kPart; ++l) any |= s[c + l] == x;
    if (any) break;
  }
  while (c < n && s[c] != x) ++c;
  return c;
}

}  // namespace regard::order
