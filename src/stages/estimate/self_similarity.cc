// Cosine self-similarity of tiles. See estimate.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "stages/estimate.h"
#include "stages/matrix.h"

namespace regard::estimate {
namespace {

using Row = std::vector<double>;

Row mean_token(const View& v, int64_t b, int64_t h) {
  const int64_t depth = v.size[3];
  Row mean(size_t(depth), 0.0);
  std::vector<float> row(static_cast<size_t>(depth));
  for (int64_t i = 0; i < v.size[2]; ++i) {
    matrix::load_rows(v, b, h, i, 1, row.data());
    for (int64_t t = 0; t < depth; ++t) mean[t] += row[t];
  }
  for (double& m : mean) m /= double(v.size[2]);
  return mean;
}

float similarity(const View& v, int64_t b, int64_t h, int64_t begin, int64_t end,
                 const Row& shift) {
  const int64_t depth = v.size[3];
  std::vector<float> rows(size_t((end - begin) * depth));
  matrix::load_rows(v, b, h, begin, end - begin, rows.data());
  Row sum(size_t(depth), 0.0), x(size_t(depth), 0.0);
  for (int64_t i = 0; i < end - begin; ++i) {
    double square = 0;
    for (int64_t t = 0; t < depth; ++t) {
      x[t] = double(rows[i * depth + t]) - shift[t];
      square += x[t] * x[t];
    }
    const double length = std::max(std::sqrt(square), 1e-12);  // a zero vector is like nothing
    for (int64_t t = 0; t < depth; ++t) sum[t] += x[t] / length;
  }
  double square = 0;
  for (const double s : sum) square += s * s;
  return float(square / double((end - begin) * (end - begin)));
}

}  // namespace

BlockScores self_similarity(const Ctx& ctx, const View& v, int block, bool minus_mean,
                            bool whole_only) {
  const StageTimer timer(ctx, "estimate.self_similarity");
  BlockScores out;
  out.batch = v.size[0];
  out.heads = v.size[1];
  out.rows = 1;
  out.cols = (v.size[2] + block - 1) / block;
  out.s.resize(size_t(out.batch * out.heads * out.cols));
  parallel_for(out.batch * out.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / out.heads, h = bh % out.heads;
    const Row shift = minus_mean ? mean_token(v, b, h) : Row(size_t(v.size[3]), 0.0);
    for (int64_t c = 0; c < out.cols; ++c) {
      const int64_t end = std::min<int64_t>((c + 1) * int64_t(block), v.size[2]);
      const bool partial = end - c * block < block;
      out.row(b, h, 0)[c] = whole_only && partial ? std::numeric_limits<float>::quiet_NaN()
                                                  : similarity(v, b, h, c * block, end, shift);
    }
  });
  return out;
}

}  // namespace regard::estimate
