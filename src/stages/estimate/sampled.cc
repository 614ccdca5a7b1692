// Tiles scored by a sample of their pairs, exact inside the sample: random offsets (PSA, ASA) and
// the first token of every stride with averaged heads (ProxyAttn). See estimate.h.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/estimate.h"
#include "stages/matrix.h"
#include "stages/random.h"
#include "stages/rows.h"

namespace regard::estimate {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Sampled tokens of one side: token ids, and how many a tile has.
struct Side {
  std::vector<int64_t> token;
  int64_t per_tile;
};

// Offsets into a tile -> tokens of all tiles. Past the end the last token stands in, if `repeat`.
Side side(const std::vector<int64_t>& offsets, int64_t tokens, int64_t block, bool repeat) {
  Side out{{}, int64_t(offsets.size())};
  for (int64_t begin = 0; begin < tokens; begin += block)
    for (const int64_t o : offsets)
      if (repeat || begin + o < tokens) out.token.push_back(std::min(begin + o, tokens - 1));
  return out;
}

std::vector<int64_t> drawn(int64_t block, int64_t count, int64_t seed, int64_t head,
                           int64_t which) {
  std::vector<int64_t> order(static_cast<size_t>(block));
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int64_t o) { return random_bits(seed, head, which, o); };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  order.resize(size_t(std::min(count, block)));
  std::sort(order.begin(), order.end());
  return order;
}

// Offsets as given, ascending; or drawn.
std::vector<int64_t> offsets_of(const Tensor& given, const Problem& p, int64_t b, int64_t h,
                                int64_t block, std::vector<int64_t> otherwise) {
  const View& v = given.view;
  if (!v) return otherwise;
  if ((v.size[0] != 1 && v.size[0] != p.batch) || (v.size[1] != 1 && v.size[1] != p.heads) ||
      v.size[2] != 1 || v.size[3] < 1 || info(v.dtype).block != 1)
    throw Error(fmt::format("sampled offsets {}; accepted: [1|{},1|{},1,any]", v.shape(), p.batch,
                            p.heads));
  std::vector<double> row(size_t(v.size[3]));
  read_row(v, v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, 0, row.data());
  for (const double o : row)
    if (!(o >= 0 && o < double(block)) || o != double(int64_t(o)))
      throw Error(fmt::format("sampled offset {}; accepted: whole numbers below {}", o, block));
  std::sort(row.begin(), row.end());
  return {row.begin(), row.end()};
}

BlockScores empty_scores(const Problem& p, int bq, int bk, bool causal) {
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.rows = (p.nq + bq - 1) / bq;
  out.cols = (p.nk + bk - 1) / bk;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols), 0.0f);
  for (int64_t row = 0; causal && row < out.batch * out.heads * out.rows; ++row) {
    const int64_t last = p.offset + std::min((row % out.rows + 1) * int64_t(bq), p.nq) - 1;
    for (int64_t c = 0; c < out.cols; ++c)
      if (c * bk > last) out.s[row * out.cols + c] = -kInf;
  }
  return out;
}

// Adds the tiles of one head. q, k: rows of the sampled tokens.
void score_head(const Ctx& ctx, const Inputs& x, const Side& qs, const Side& ks,
                const std::vector<float>& q, const std::vector<float>& k, bool normalised,
                float* scores, int64_t cols) {
  const int64_t depth = x.problem.dk, n = int64_t(qs.token.size()), m = int64_t(ks.token.size());
  const int64_t stride = matrix::row_stride(m);
  std::vector<matrix::Line> panels(size_t(matrix::panels(m) * depth));
  for (int64_t j = 0; j < m; j += matrix::kPanel)
    matrix::pack_panel(&k[j * depth], std::min(matrix::kPanel, m - j), depth,
                       &panels[j / matrix::kPanel * depth]);
  const auto seen_by = [&](int64_t i) {
    const int64_t position = qs.token[i] + x.problem.offset;
    return x.causal
               ? std::upper_bound(ks.token.begin(), ks.token.end(), position) - ks.token.begin()
               : m;
  };
  parallel_for((n + qs.per_tile - 1) / qs.per_tile, ctx.threads, [&](int64_t tile, int) {
    const int64_t i0 = tile * qs.per_tile, rows = std::min(qs.per_tile, n - i0);
    static thread_local std::vector<float> logits;
    logits.resize(size_t(qs.per_tile * stride));
    for (int64_t j = 0; j < matrix::panels(seen_by(i0 + rows - 1)); ++j)
      matrix::multiply(&q[i0 * depth], rows, depth, &panels[j * depth], &logits[j * matrix::kPanel],
                       stride);
    float* const best = scores + tile * cols;
    for (int64_t i = 0; i < rows; ++i) {
      float* const row = &logits[i * stride];
      const int64_t seen = seen_by(i0 + i);
      if (seen == 0) continue;
      matrix::scale_cap(row, seen, x.problem.scale, 0);
      const float sum = matrix::exponentials(row, seen, matrix::max_of(row, seen));
      for (int64_t c = 0; c * ks.per_tile < seen; ++c) {
        const int64_t end = std::min((c + 1) * ks.per_tile, seen);
        float most = 0;  // the greatest quotient is that of the greatest number
        for (int64_t j = c * ks.per_tile; j < end; ++j) most = std::max(most, row[j]);
        best[c] = std::max(best[c], normalised ? most / sum : most);
      }
    }
  });
}

// Rows of the sampled tokens, averaged over heads [first, last) of `v`, `group` to one of its
// heads.
std::vector<float> mean_rows(const View& v, int64_t b, int64_t first, int64_t last, int64_t group,
                             const std::vector<int64_t>& token) {
  const int64_t depth = v.size[3];
  std::vector<double> sum(token.size() * size_t(depth), 0.0);
  std::vector<float> row(static_cast<size_t>(depth)), out(sum.size());
  for (int64_t h = first; h < last; ++h)
    for (size_t i = 0; i < token.size(); ++i) {
      matrix::load_rows(v, b, h / group, token[i], 1, row.data());
      for (int64_t t = 0; t < depth; ++t) sum[i * depth + t] += row[t];
    }
  for (size_t i = 0; i < out.size(); ++i) out[i] = float(sum[i] / double(last - first));
  return out;
}

}  // namespace

BlockScores sampled(const Ctx& ctx, const Inputs& x, int bq, int bk, const Sample& how) {
  const StageTimer timer(ctx, "estimate.sampled");
  const Problem& p = x.problem;
  need_one_sequence(p, "sampled tiles");
  if (how.queries < 1 || how.keys < 1) throw Error("sampled tiles: at least one token a tile");
  BlockScores out = empty_scores(p, bq, bk, x.causal);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    const Side qs =
        side(offsets_of(how.query_offsets, p, b, h, bq, drawn(bq, how.queries, how.seed, h, 0)),
             p.nq, bq, true);
    const Side ks =
        side(offsets_of(how.key_offsets, p, b, h, bk, drawn(bk, how.keys, how.seed, h, 1)), p.nk,
             bk, true);
    score_head(ctx, x, qs, ks, mean_rows(x.q, b, h, h + 1, 1, qs.token),
               mean_rows(x.k, b, h, h + 1, p.group(), ks.token), how.normalised, out.row(b, h, 0),
               out.cols);
  });
  return out;
}

BlockScores proxy_heads(const Ctx& ctx, const Inputs& x, int block, int stride, int64_t groups) {
  const StageTimer timer(ctx, "estimate.proxy_heads");
  const Problem& p = x.problem;
  need_one_sequence(p, "proxy heads");
  if (stride < 1 || block % stride != 0)
    throw Error(
        fmt::format("proxy heads: block {} and stride {}; accepted: a block that is a "
                    "multiple of the stride",
                    block, stride));
  groups = std::min(groups, p.heads);
  if (groups < 1 || p.heads % groups != 0)
    throw Error(
        fmt::format("proxy heads: {} groups of {} heads; accepted: a number that divides "
                    "them",
                    groups, p.heads));
  std::vector<int64_t> offsets;
  for (int64_t o = 0; o < block; o += stride) offsets.push_back(o);
  const Side qs = side(offsets, p.nq, block, false), ks = side(offsets, p.nk, block, false);
  BlockScores out = empty_scores(p, block, block, x.causal);
  const int64_t each = p.heads / groups;
  parallel_for(p.batch * groups, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / groups, h = item % groups * each;
    score_head(ctx, x, qs, ks, mean_rows(x.q, b, h, h + each, 1, qs.token),
               mean_rows(x.k, b, h, h + each, p.group(), ks.token), true, out.row(b, h, 0),
               out.cols);
    for (int64_t other = h + 1; other < h + each; ++other)
      std::copy_n(out.row(b, h, 0), out.rows * out.cols, out.row(b, other, 0));
  });
  return out;
}

}  // namespace regard::estimate
