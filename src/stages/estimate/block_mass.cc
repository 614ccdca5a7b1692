// Exact attention mass of every tile: the yardstick for estimators, and the picture of a head.
#include <algorithm>

#include "core/parallel.h"
#include "stages/estimate.h"
#include "stages/rows.h"

namespace regard::estimate {

BlockScores block_mass(const Ctx& ctx, const Inputs& x, int bq, int bk) {
  const StageTimer timer(ctx, "estimate.block_mass");
  const Problem& p = x.problem;
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.rows = (p.nq + bq - 1) / bq;
  out.cols = (p.nk + bk - 1) / bk;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols), 0.0f);
  const ProbabilityRows probabilities(x);
  constexpr int64_t kRows = 16;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(x.k, b, kv, ctx.threads);
      parallel_for(p.group() * out.rows, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / out.rows, r = item % out.rows;
        const int64_t end = std::min((r + 1) * int64_t(bq), p.nq), stride = probabilities.stride();
        thread_local std::vector<float> rows;
        rows.resize(size_t(kRows * stride));
        std::vector<double> sums(size_t(out.cols), 0.0);
        for (int64_t i = r * bq; i < end; i += kRows) {
          const int64_t count = std::min(kRows, end - i);
          probabilities.run(keys, b, h, i, count, rows.data(), stride);
          for (int64_t a = 0; a < count; ++a)
            for (int64_t c = 0; c < out.cols; ++c) {
              float sum = 0;
              for (int64_t j = c * bk; j < std::min((c + 1) * int64_t(bk), p.nk); ++j)
                sum += rows[a * stride + j];
              sums[c] += sum;
            }
        }
        std::copy(sums.begin(), sums.end(), out.row(b, h, r));
      });
    }
  return out;
}

}  // namespace regard::estimate
