// Exact attention mass of every tile: the yardstick for estimators, and the picture of a head.
#include <algorithm>
#include <limits>

#include "algebra/exponential.h"
#include "core/parallel.h"
#include "stages/estimate.h"
#include "stages/rows.h"
#include "stages/tile_sums.h"

namespace regard::estimate {
namespace {

// Adds the probabilities of each tile of one query to its column. top and sum are used up.
void add_row(const Inputs& x, int64_t h, int64_t tiles, float* top, float* sum, double* columns) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float sink = x.norm.kind == NormKind::softmax_sink ? x.norm.sink[h] : -kInf;
  float most = std::max(matrix::max_of(top, tiles), sink);
  if (most == -kInf) most = 0;
  matrix::exponentials(top, tiles, most);
  for (int64_t c = 0; c < tiles; ++c) sum[c] *= top[c];
  const float total = matrix::sum_of(sum, tiles) + exponential::of(sink - most);
  const float inverse = total == 0 ? 0 : 1 / total;
  for (int64_t c = 0; c < tiles; ++c) columns[c] += sum[c] * inverse;
}

// Tile rows without the probabilities of single pairs.
void add_tile_rows(const Ctx& ctx, const Inputs& x, int bq, int bk, BlockScores* out) {
  const Problem& p = x.problem;
  const TileSums sums(x, bk);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(x.k, b, kv, ctx.threads);
      parallel_for(p.group() * out->rows, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / out->rows, r = item % out->rows;
        const int64_t end = std::min((r + 1) * int64_t(bq), p.nq);
        static thread_local std::vector<float> top, sum;
        top.resize(size_t(TileSums::kRows * out->cols)), sum.resize(top.size());
        std::vector<double> columns(size_t(out->cols), 0.0);
        for (int64_t i = r * bq; i < end; i += TileSums::kRows) {
          const int64_t count = std::min(TileSums::kRows, end - i);
          sums.run(keys, b, h, i, count, top.data(), sum.data());
          for (int64_t a = 0; a < count; ++a) {
            const int64_t seen =
                x.causal ? std::clamp<int64_t>(i + a + p.offset + 1, 0, p.nk) : p.nk;
            add_row(x, h, (seen + bk - 1) / bk, &top[a * out->cols], &sum[a * out->cols],
                    columns.data());
          }
        }
        std::copy(columns.begin(), columns.end(), out->row(b, h, r));
      });
    }
}

}  // namespace

BlockScores block_mass(const Ctx& ctx, const Inputs& x, int bq, int bk) {
  const StageTimer timer(ctx, "estimate.block_mass");
  const Problem& p = x.problem;
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.rows = (p.nq + bq - 1) / bq;
  out.cols = (p.nk + bk - 1) / bk;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols), 0.0f);
  if (TileSums::takes(x, bk)) {
    add_tile_rows(ctx, x, bq, bk, &out);
    return out;
  }
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
