// XAttention's block importance (arXiv 2503.16428, algorithm 1).
//
// With stride S, query group i holds queries [i S, (i + 1) S) of the strip, key group j holds keys
// [j S, (j + 1) S). Flattened, queries in reverse, one dot product of length S * dk is the sum over
// the antidiagonal of the S x S square:  A[i][j] = sum_t q[i S + S - 1 - t] . k[j S + t].
// Tokens past an end count as zero vectors.
//
// Where keys are of 16 bits, rows of both are rounded to levels first (levels.h), so that tensor
// cores and integer units add up the same products: A is then the sum over t, ascending, of
// integers times scales.
//
// The softmax has the same order everywhere: exponentials of a tile's groups under the tile's own
// maximum are added in order; tiles are scaled to the row's maximum and added as matrix::sum_of
// does; then the rows of a tile are added in order, each fused with one over its sum.
//
// Causal: group j is visible to group i when its first key is visible to i's last query. For
// offsets that are multiples of S this is the paper's j <= i + offset / S: the square on the
// diagonal is taken whole and looks up to S - 1 tokens ahead (for choosing tiles only).
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/device.h"
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
        q_groups_(ceil_div(p_.nq, stride)),
        k_groups_(ceil_div(p_.nk, stride)),
        line_(matrix::row_stride(k_groups_)),
        levels_(info(x.k.dtype).bytes == 2),
        width_(levels_ ? matrix::level_pairs(p_.dk) : p_.dk),
        depth_(stride * width_) {
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
    queries_.resize(size_t(p_.batch * p_.heads * groups * depth_));
    scales_.assign(levels_ ? size_t(p_.batch * p_.heads * groups * stride_) : 0, 0.0f);
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

  // Rows of queries (head by head of a KV head, group by group) as products() multiplies them:
  // tokens innermost in f32; in levels, the first tokens of all rows, then the second, ...
  void load_queries(int64_t b, int64_t h, int64_t g0, int64_t groups) {
    const int64_t rows = p_.group() * groups, kv = b * p_.kv_heads + h / p_.group();
    const int64_t first = h % p_.group() * groups;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t i = (g0 + g) * stride_, count = std::min<int64_t>(stride_, p_.nq - i);
      const int64_t t = stride_ - 1;  // of query i: they come in reverse
      if (levels_) {
        const int64_t at = (kv * stride_ + t) * rows + first + g;
        matrix::load_levels(x_.q, b, h, i, count, &queries_[at * width_], -rows * width_,
                            &scales_[at], -rows);
        for (int64_t n = count; n < stride_; ++n)
          std::fill_n(&queries_[(at - n * rows) * width_], width_, 0.0f);
        continue;
      }
      float* const row = &queries_[(kv * rows + first + g) * depth_];
      std::fill_n(row, (stride_ - count) * width_, 0.0f);
      for (int64_t n = 0; n < count; ++n)
        matrix::load_rows(x_.q, b, h, i + n, 1, row + (t - n) * width_);
    }
  }

  // A panel of key groups of one KV head against the queries of all its heads.
  void products(int64_t b, int64_t kv, int64_t panel, int64_t groups) {
    const int64_t first = panel * kPanel * stride_;
    const int64_t tokens = std::min(kPanel * stride_, p_.nk - first);
    thread_local std::vector<float> rows;
    thread_local std::vector<Line> packed;
    rows.resize(size_t(kPanel * depth_));
    packed.resize(size_t(depth_));
    const int64_t height = p_.group() * groups, row = (b * p_.kv_heads + kv) * height;
    float* const to = &logits_[row * line_ + panel * kPanel];
    if (!levels_) {
      matrix::load_rows(x_.k, b, kv, first, tokens, rows.data());
      std::fill(rows.begin() + tokens * p_.dk, rows.end(), 0.0f);
      matrix::pack_panel(rows.data(), kPanel, depth_, packed.data());
      matrix::multiply(&queries_[row * depth_], height, depth_, packed.data(), to, line_);
      return;
    }
    // Token t of every group side by side: rows `depth` apart would share a few sets of the cache.
    thread_local std::vector<Line> scale;
    scale.assign(size_t(stride_), Line{});
    for (int64_t n = 0; n < tokens; n += stride_)
      matrix::load_levels(x_.k, b, kv, first + n, std::min<int64_t>(stride_, tokens - n),
                          &rows[n / stride_ * width_], kPanel * width_, &scale[0].x[n / stride_],
                          kPanel);
    for (int64_t t = 0; t < stride_; ++t)
      matrix::pack_panel(&rows[t * kPanel * width_], (tokens - t + stride_ - 1) / stride_, width_,
                         &packed[t * width_]);
    matrix::multiply_levels(&queries_[row * depth_], &scales_[row * stride_], height, stride_,
                            width_, packed.data(), scale.data(), to, line_);
  }

  // Softmax over the visible key groups, then sums over the groups of each tile.
  void sum_tile_row(int64_t bh, int64_t g0, int64_t tile, int64_t groups) {
    const int64_t begin = tile * per_tile_, end = std::min(begin + per_tile_, groups);
    thread_local std::vector<float> top, sum;
    top.resize(size_t(out_.cols)), sum.resize(size_t(out_.cols));
    float* const dst = out_.row(bh / p_.heads, bh % p_.heads, g0 / per_tile_ + tile);
    for (int64_t g = begin; g < end; ++g) {
      float* row = &logits_[(bh * groups + g) * line_];
      const int64_t n = visible(g0 + g), tiles = ceil_div(n, per_tile_);
      if (n == 0) continue;
      matrix::scale_cap(row, n, p_.scale / float(stride_), 0);
      matrix::tile_exponentials(row, n, per_tile_, top.data(), sum.data());
      matrix::exponentials(top.data(), tiles, matrix::max_of(top.data(), tiles));
      for (int64_t c = 0; c < tiles; ++c) sum[c] *= top[c];
      matrix::add_scaled(dst, sum.data(), 1 / matrix::sum_of(sum.data(), tiles), tiles);
    }
  }

  const Ctx& ctx_;
  const Inputs& x_;
  const Problem& p_;
  const int64_t stride_, per_tile_, q_groups_, k_groups_, line_;
  const bool levels_;
  const int64_t width_, depth_;  // numbers a token and a group: channels, or pairs of their levels
  // [batch, KV heads, heads of it x groups of the chunk, depth]; levels: [.., .., stride, rows,
  // width]
  Scores queries_;
  std::vector<float> scales_;  // of levels: [batch, KV heads, stride, rows]
  Scores logits_;              // [batch, heads, groups of the chunk, line]
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
  if (x.q.device == Device::cuda) return device::antidiagonal(x, block, stride, ctx.stream);
  return Antidiagonal(ctx, x, block, stride).run();
}

}  // namespace regard::estimate
