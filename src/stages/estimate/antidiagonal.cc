// XAttention's block importance (arXiv 2503.16428, algorithm 1).
//
// With stride S, query group i holds queries [i S, (i + 1) S) of the strip, key group j holds keys
// [j S, (j + 1) S). Flattened, queries in reverse, one dot product of length S * dk is the sum over
// the antidiagonal of the S x S square:  A[i][j] = sum_t q[i S + S - 1 - t] . k[j S + t].
// Tokens past an end count as zero vectors.
//
// Causal: group j is visible to group i when its first key is visible to i's last query. For
// offsets that are multiples of S this is the paper's j <= i + offset / S: the square on the
// diagonal is taken whole and looks up to S - 1 tokens ahead (for choosing tiles only).
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/estimate.h"
#include "stages/matrix.h"
#include "stages/rows.h"

namespace regard::estimate {
namespace {

using matrix::kPanel;
using matrix::Line;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Antidiagonal {
 public:
  Antidiagonal(const Ctx& ctx, const Inputs& x, int block, int stride)
      : ctx_(ctx),
        x_(x),
        p_(x.problem),
        stride_(stride),
        per_tile_(block / stride),
        depth_(stride * x.problem.dk),
        q_groups_(ceil_div(p_.nq, stride)),
        k_groups_(ceil_div(p_.nk, stride)),
        line_(matrix::row_stride(k_groups_)) {
    out_.batch = p_.batch;
    out_.heads = p_.heads;
    out_.rows = ceil_div(p_.nq, block);
    out_.cols = ceil_div(p_.nk, block);
    out_.s.assign(size_t(out_.batch * out_.heads * out_.rows * out_.cols), 0.0f);
  }

  BlockScores run() {
    // 2048 queries at a time: the logits of one chunk stay small whatever the length.
    const int64_t chunk = std::max<int64_t>(1, 2048 / (per_tile_ * stride_)) * per_tile_;
    for (int64_t g = 0; g < q_groups_; g += chunk) chunk_of(g, std::min(g + chunk, q_groups_));
    return std::move(out_);
  }

 private:
  // Key groups that query group `g` sees.
  int64_t visible(int64_t g) const {
    if (!x_.causal) return k_groups_;
    const int64_t last = p_.offset + std::min((g + 1) * stride_, p_.nq) - 1;
    return last < 0 ? 0 : std::min(k_groups_, last / stride_ + 1);
  }

  void chunk_of(int64_t g0, int64_t g1) {
    const int64_t groups = g1 - g0, seen = matrix::panels(visible(g1 - 1));
    queries_.assign(size_t(p_.batch * p_.heads * groups * depth_), 0.0f);
    logits_.resize(size_t(p_.batch * p_.heads * groups * line_));
    parallel_for(p_.batch * p_.heads, ctx_.threads,
                 [&](int64_t bh, int) { load_queries(bh / p_.heads, bh % p_.heads, g0, groups); });
    parallel_for(p_.batch * p_.kv_heads * seen, ctx_.threads, [&](int64_t item, int) {
      products(item / seen / p_.kv_heads, item / seen % p_.kv_heads, item % seen, groups);
    });
    const int64_t tiles = ceil_div(groups, per_tile_);
    parallel_for(p_.batch * p_.heads * tiles, ctx_.threads,
                 [&](int64_t item, int) { sum_tile_row(item / tiles, g0, item % tiles, groups); });
  }

  void load_queries(int64_t b, int64_t h, int64_t g0, int64_t groups) {
    float* dst = &queries_[(b * p_.heads + h) * groups * depth_];
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t t = 0; t < stride_; ++t) {
        const int64_t i = (g0 + g) * stride_ + stride_ - 1 - t;
        if (i < p_.nq) matrix::load_rows(x_.q, b, h, i, 1, dst + g * depth_ + t * p_.dk);
      }
  }

  // A panel of key groups of one KV head against the queries of all its heads.
  void products(int64_t b, int64_t kv, int64_t panel, int64_t groups) {
    const int64_t first = panel * kPanel * stride_;
    const int64_t tokens = std::min(kPanel * stride_, p_.nk - first);
    thread_local std::vector<float> rows;
    thread_local std::vector<Line> packed;
    rows.assign(size_t(kPanel * depth_), 0.0f);
    packed.resize(size_t(depth_));
    matrix::load_rows(x_.k, b, kv, first, tokens, rows.data());
    matrix::pack_panel(rows.data(), kPanel, depth_, packed.data());
    const int64_t row = (b * p_.heads + kv * p_.group()) * groups;
    matrix::multiply(&queries_[row * depth_], p_.group() * groups, depth_, packed.data(),
                     &logits_[row * line_ + panel * kPanel], line_);
  }

  // Softmax over the visible key groups, then sums over the groups of each tile.
  void sum_tile_row(int64_t bh, int64_t g0, int64_t tile, int64_t groups) {
    const int64_t begin = tile * per_tile_, end = std::min(begin + per_tile_, groups);
    std::vector<double> sums(size_t(out_.cols), 0.0);
    for (int64_t g = begin; g < end; ++g) {
      float* row = &logits_[(bh * groups + g) * line_];
      const int64_t n = visible(g0 + g);
      if (n == 0) continue;
      matrix::scale_cap(row, n, p_.scale / float(stride_), 0);
      const float total = matrix::exponentials(row, n, matrix::max_of(row, n));
      for (int64_t c = 0; c * per_tile_ < n; ++c) {
        double sum = 0;
        for (int64_t j = c * per_tile_; j < std::min((c + 1) * per_tile_, n); ++j) sum += row[j];
        sums[c] += sum / total;
      }
    }
    float* dst = out_.row(bh / p_.heads, bh % p_.heads, g0 / per_tile_ + tile);
    std::copy(sums.begin(), sums.end(), dst);
  }

  const Ctx& ctx_;
  const Inputs& x_;
  const Problem& p_;
  const int64_t stride_, per_tile_, depth_, q_groups_, k_groups_, line_;
  std::vector<float> queries_;  // [batch, heads, groups of the chunk, depth]
  std::vector<float> logits_;   // [batch, heads, groups of the chunk, line]
  BlockScores out_;
};

}  // namespace

BlockScores antidiagonal(const Ctx& ctx, const Inputs& x, int block, int stride) {
  const StageTimer timer(ctx, "estimate.antidiagonal");
  need_one_sequence(x.problem, "antidiagonal");
  if (stride < 1 || block < stride || block % stride != 0)
    throw Error(
        fmt::format("antidiagonal: block {} and stride {}; accepted: a block that is a "
                    "multiple of the stride",
                    block, stride));
  return Antidiagonal(ctx, x, block, stride).run();
}

}  // namespace regard::estimate
