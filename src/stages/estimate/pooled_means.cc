// Means of queries and keys over tiles, and their scaled dot products. The last tile's mean is over
// the tokens it has.
#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "stages/device.h"
#include "stages/estimate.h"
#include "stages/matrix.h"
#include "stages/rows.h"

namespace regard::estimate {
namespace {

// Means over `block` places: [ceil(tokens / block), channels]. order: who stands where, or null.
std::vector<float> means(const View& v, int64_t b, int64_t h, int64_t block,
                         const uint32_t* order) {
  const int64_t tokens = v.size[2], depth = v.size[3], count = (tokens + block - 1) / block;
  std::vector<float> out(size_t(count * depth)), rows(size_t(std::min(block, tokens) * depth));
  std::vector<double> sum(static_cast<size_t>(depth));
  for (int64_t c = 0; c < count; ++c) {
    const int64_t n = std::min(block, tokens - c * block);
    if (!order) matrix::load_rows(v, b, h, c * block, n, rows.data());
    for (int64_t i = 0; order && i < n; ++i)
      matrix::load_rows(v, b, h, order[c * block + i], 1, &rows[i * depth]);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t t = 0; t < depth; ++t) sum[t] += rows[i * depth + t];
    for (int64_t t = 0; t < depth; ++t) out[c * depth + t] = float(sum[t] / double(n));
  }
  return out;
}

}  // namespace

BlockScores pooled_means(const Ctx& ctx, const Inputs& x, int bq, int bk,
                         const Permutation* order) {
  const StageTimer timer(ctx, "estimate.pooled_means");
  const Problem& p = x.problem;
  need_one_sequence(p, "pooled means");
  if (x.q.device == Device::cuda && !order) return device::pooled_means(x, bq, bk, ctx.stream);
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.rows = (p.nq + bq - 1) / bq;
  out.cols = (p.nk + bk - 1) / bk;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols),
               -std::numeric_limits<float>::infinity());
  parallel_for(p.batch * p.kv_heads, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / p.kv_heads, kv = item % p.kv_heads;
    std::vector<float> keys;
    if (!order) keys = means(x.k, b, kv, bk, nullptr);
    std::vector<matrix::Line> panel(size_t(p.dk));
    std::vector<float> dots(size_t(out.rows * matrix::kPanel));
    for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
      if (order) keys = means(x.k, b, kv, bk, order->row(b, h, p.heads));
      const std::vector<float> queries = means(x.q, b, h, bq, nullptr);
      for (int64_t c0 = 0; c0 < out.cols; c0 += matrix::kPanel) {
        const int64_t n = std::min(matrix::kPanel, out.cols - c0);
        matrix::pack_panel(&keys[c0 * p.dk], n, p.dk, panel.data());
        matrix::multiply(queries.data(), out.rows, p.dk, panel.data(), dots.data(), matrix::kPanel);
        for (int64_t r = 0; r < out.rows; ++r) {
          const int64_t last = p.offset + std::min((r + 1) * int64_t(bq), p.nq) - 1;
          for (int64_t c = c0; c < c0 + n; ++c)
            if (!x.causal || c * bk <= last)
              out.row(b, h, r)[c] = p.scale * dots[r * matrix::kPanel + c - c0];
        }
      }
    }
  });
  return out;
}

}  // namespace regard::estimate
