// Keys by importance, blocks by Sinkhorn's normalisation.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "stages/matrix.h"
#include "stages/order.h"
#include "stages/rows.h"

namespace regard::order {

std::shared_ptr<const Permutation> by_importance(const Ctx& ctx, const Inputs& x, int64_t segment,
                                                 int64_t probe) {
  const StageTimer timer(ctx, "order.by_importance");
  const Problem& p = x.problem;
  need_one_sequence(p, "sorting by importance");
  const int64_t whole = p.nk / segment * segment, rows = std::min(probe, p.nq);
  auto out = std::make_shared<Permutation>();
  out->batch = p.batch, out->heads = p.heads, out->n = p.nk;
  out->token.resize(size_t(p.batch * p.heads * p.nk));
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    uint32_t* token = &out->token[bh * p.nk];
    std::iota(token, token + p.nk, 0u);
    if (whole == 0 || rows == 0) return;
    const matrix::Packed keys = matrix::pack_keys(x.k, b, h / p.group(), 1);
    const int64_t stride = matrix::row_stride(p.nk);
    std::vector<float> q(size_t(rows * p.dk)), dots(size_t(rows * stride));
    std::vector<float> mass(size_t(whole), 0.0f);
    matrix::load_rows(x.q, b, h, p.nq - rows, rows, q.data());
    for (int64_t panel = 0; panel < matrix::panels(whole); ++panel)
      matrix::multiply(q.data(), rows, p.dk, keys.panel(panel), &dots[panel * matrix::kPanel],
                       stride);
    for (int64_t i = 0; i < rows; ++i) {
      float* row = &dots[i * stride];
      matrix::scale_cap(row, whole, p.scale, 0);
      const float sum = matrix::exponentials(row, whole, matrix::max_of(row, whole));
      matrix::scale_cap(row, whole, 1 / sum, 0);
      matrix::add(mass.data(), row, whole);
    }
    // NaN is no importance.
    for (float& m : mass)
      if (std::isnan(m)) m = 0;
    for (int64_t first = 0; first < whole; first += segment)
      std::stable_sort(token + first, token + first + segment,
                       [&](uint32_t a, uint32_t c) { return mass[a] > mass[c]; });
  });
  return out;
}

TileBits blocks_of(const Problem& p, int bq, int bk, const Permutation& keys, int64_t token) {
  TileBits out(keys.batch, keys.heads, (p.nq + bq - 1) / bq, (p.nk + bk - 1) / bk);
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h) {
      const uint32_t* first = keys.row(b, h, keys.heads);
      const int64_t place = std::find(first, first + keys.n, uint32_t(token)) - first;
      for (int64_t r = 0; r < out.rows; ++r) out.set(b, h, r, place / bk);
    }
  return out;
}

namespace {

// x - ln sum e^x of a row or column of one head; -inf and NaN stand outside.
void normalise(float* x, int64_t count, int64_t step) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t n = 0; n < count; ++n)
    if (x[n * step] > top) top = x[n * step];
  if (std::isinf(top)) return;
  for (int64_t n = 0; n < count; ++n)
    if (!std::isnan(x[n * step])) sum += std::exp(x[n * step] - top);
  const float lse = float(top + std::log(sum));
  for (int64_t n = 0; n < count; ++n) x[n * step] -= lse;
}

}  // namespace

BlockScores sinkhorn(BlockScores scores, int64_t iterations, double temperature) {
  scores = on_host(std::move(scores));
  for (float& s : scores.s)
    if (!std::isinf(s)) s = float(std::log(std::max(double(s), 0.0) + 1e-6) / temperature);
  for (int64_t b = 0; b < scores.batch; ++b)
    for (int64_t h = 0; h < scores.heads; ++h) {
      float* head = scores.row(b, h, 0);
      for (int64_t it = 0; it < iterations; ++it) {
        for (int64_t r = 0; r < scores.rows; ++r) normalise(head + r * scores.cols, scores.cols, 1);
        for (int64_t c = 0; c < scores.cols; ++c) normalise(head + c, scores.rows, scores.cols);
      }
    }
  return scores;
}

}  // namespace regard::order
