// Attention to overlapping means of keys, gathered to blocks. See estimate.h.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/estimate.h"
#include "stages/features.h"
#include "stages/matrix.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::estimate {
namespace {

constexpr int64_t kRows = 16;  // queries a work item

// The means that overlap each block, and by how much: share[j - first] = tokens / stride.
struct Overlap {
  int64_t first, last;
  std::vector<float> share;
};

std::vector<Overlap> overlaps(const Compression& how, int64_t blocks) {
  std::vector<Overlap> out;
  for (int64_t c = 0; c < blocks; ++c) {
    const int64_t begin = c * how.block, end = begin + how.block;
    // From the first mean that ends past `begin` to the last that begins before `end`.
    Overlap o{begin < how.width ? 0 : (begin - how.width) / how.stride + 1,
              (end - 1) / how.stride + 1,
              {}};
    for (int64_t j = o.first; j < o.last; ++j) {
      const int64_t at = j * how.stride;
      const int64_t tokens = std::min(at + how.width, end) - std::max(at, begin);
      o.share.push_back(float(tokens) / float(how.stride));
    }
    out.push_back(std::move(o));
  }
  return out;
}

// Probabilities of the first `seen` means -> scores of the first `blocks` blocks.
void gather(const float* p, int64_t seen, const std::vector<Overlap>& table, bool maximum,
            int64_t blocks, float* out) {
  for (int64_t c = 0; c < blocks; ++c) {
    const Overlap& o = table[size_t(c)];
    float score = 0;
    for (int64_t j = o.first; j < std::min(seen, o.last); ++j)
      score = maximum ? std::max(score, p[j]) : score + o.share[size_t(j - o.first)] * p[j];
    out[c] = score;
  }
}

std::vector<matrix::Line> packed(const Tensor& rows, int64_t b, int64_t h, int64_t count) {
  if (count == 0) return {};
  const float* const x = reinterpret_cast<const float*>(rows.view.at(b, h, 0));
  const int64_t depth = rows.view.size[3];
  std::vector<matrix::Line> panels(size_t(matrix::panels(count) * depth));
  for (int64_t j = 0; j < count; j += matrix::kPanel)
    matrix::pack_panel(x + j * depth, std::min(matrix::kPanel, count - j), depth,
                       &panels[j / matrix::kPanel * depth]);
  return panels;
}

// f(b, kv, query, scores of the first blocks, their number: those up to the query's own) for every
// query of every KV head.
template <class F>
void each_row(const Ctx& ctx, const Inputs& x, const Compression& how, int64_t cols, const F& f) {
  const Problem& p = x.problem;
  const Tensor keys =
      how.keys ? how.keys
               : features::compress(ctx, "k", x.k, {.width = how.width, .stride = how.stride});
  const StageTimer timer(ctx, "estimate.compressed");
  const std::vector<Overlap> table = overlaps(how, cols);
  const auto ended = [](int64_t n, int64_t width, int64_t step) {
    return n < width ? 0 : (n - width) / step + 1;
  };
  const int64_t count = ended(p.nk, how.width, how.stride);
  const int64_t stride = matrix::row_stride(std::max<int64_t>(count, 1));
  const int64_t times = how.coarse;
  const Tensor sums =
      times > 0 ? features::compress(ctx, "k", x.k,
                                     {.width = times * how.width, .stride = times * how.stride})
                : Tensor{};
  const int64_t coarse = times > 0 ? ended(p.nk, times * how.width, times * how.stride) : 0;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const std::vector<matrix::Line> panels = packed(keys, b, kv, count);
      const std::vector<matrix::Line> wide = packed(sums, b, kv, coarse);
      parallel_for((p.nq + kRows - 1) / kRows, ctx.threads, [&](int64_t item, int) {
        const int64_t first = item * kRows, rows = std::min(kRows, p.nq - first);
        static thread_local std::vector<float> q, logits, total, scores, rough;
        q.resize(size_t(rows * p.dk)), logits.resize(size_t(rows * stride));
        total.assign(size_t(rows * stride), 0.0f), scores.resize(size_t(cols));
        rough.resize(size_t(rows * stride));
        const auto keys_seen = [&](int64_t i) {
          return x.causal ? std::min(first + i + p.offset + 1, p.nk) : p.nk;
        };
        const auto seen = [&](int64_t i) { return ended(keys_seen(i), how.width, how.stride); };
        for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
          matrix::load_rows(x.q, b, h, first, rows, q.data());
          for (int64_t j = 0; j < matrix::panels(seen(rows - 1)); ++j)
            matrix::multiply(q.data(), rows, p.dk, &panels[j * p.dk], &logits[j * matrix::kPanel],
                             stride);
          for (int64_t j = 0; j < matrix::panels(coarse); ++j)
            matrix::multiply(q.data(), rows, p.dk, &wide[j * p.dk], &rough[j * matrix::kPanel],
                             stride);
          for (int64_t i = 0; i < rows; ++i) {
            float* row = &logits[i * stride];
            const int64_t n = seen(i);
            if (n == 0) continue;
            matrix::scale_cap(row, n, p.scale, 0);
            float top = matrix::max_of(row, n), sum = 0;
            if (times > 0) {
              const int64_t m = ended(keys_seen(i), times * how.width, times * how.stride);
              if (m == 0) continue;
              matrix::scale_cap(&rough[i * stride], m, p.scale, 0);
              top = matrix::max_of(&rough[i * stride], m);
              sum = matrix::exponentials(&rough[i * stride], m, top);
            }
            const float own = matrix::exponentials(row, n, top);
            if (times == 0) sum = own;
            for (int64_t j = 0; j < n; ++j) total[i * stride + j] += row[j] / sum;
          }
        }
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t last = x.causal ? first + i + p.offset : p.nk - 1;
          const int64_t blocks = last < 0 ? 0 : std::min(cols, last / how.block + 1);
          gather(&total[i * stride], seen(i), table, how.maximum, blocks, scores.data());
          f(b, kv, first + i, scores.data(), blocks);
        }
      });
    }
}

int64_t blocks_of(const Inputs& x, const Compression& how) {
  need_one_sequence(x.problem, "compressed keys");
  if (how.width < 1 || how.stride < 1 || how.block < 1)
    throw Error(fmt::format("compressed keys: width {}, stride {}, block {}; accepted: positive",
                            how.width, how.stride, how.block));
  return (x.problem.nk + how.block - 1) / how.block;
}

}  // namespace

BlockScores compressed(const Ctx& ctx, const Inputs& x, const Compression& how) {
  const Problem& p = x.problem;
  BlockScores out{p.batch, p.kv_heads, p.nq, blocks_of(x, how), {}, nullptr};
  out.s.resize(size_t(out.batch * out.heads * out.rows * out.cols));
  each_row(ctx, x, how, out.cols,
           [&](int64_t b, int64_t kv, int64_t i, const float* scores, int64_t blocks) {
             float* const row = out.row(b, kv, i);
             std::copy_n(scores, blocks, row);
             std::fill(row + blocks, row + out.cols, -std::numeric_limits<float>::infinity());
           });
  return out;
}

TileBits best_compressed(const Ctx& ctx, const Inputs& x, const Compression& how,
                         const Selector& best) {
  const Problem& p = x.problem;
  TileBits out(p.batch, p.kv_heads, p.nq, blocks_of(x, how));
  each_row(ctx, x, how, out.cols,
           [&](int64_t b, int64_t kv, int64_t i, const float* scores, int64_t blocks) {
             select_row(scores, blocks, best.forced ? best.forced->word(0, 0, i) : nullptr, best,
                        out.word(b, kv, i));
           });
  return out;
}

}  // namespace regard::estimate
