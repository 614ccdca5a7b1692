// Attention to overlapping means of keys, gathered to blocks. See estimate.h.
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

constexpr int64_t kRows = 16;  // queries a work item

// Means of `width` rows every `stride` rows, whole ones only.
std::vector<float> means(const View& v, int64_t b, int64_t h, const Compression& how,
                         int64_t count) {
  const int64_t depth = v.size[3];
  std::vector<float> rows(size_t(how.width * depth)), out(size_t(count * depth));
  std::vector<double> sum(static_cast<size_t>(depth));
  for (int64_t c = 0; c < count; ++c) {
    matrix::load_rows(v, b, h, c * how.stride, how.width, rows.data());
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t i = 0; i < how.width; ++i)
      for (int64_t t = 0; t < depth; ++t) sum[t] += rows[i * depth + t];
    for (int64_t t = 0; t < depth; ++t) out[c * depth + t] = float(sum[t] / double(how.width));
  }
  return out;
}

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

}  // namespace

BlockScores compressed(const Ctx& ctx, const Inputs& x, const Compression& how) {
  const StageTimer timer(ctx, "estimate.compressed");
  const Problem& p = x.problem;
  need_one_sequence(p, "compressed keys");
  if (how.width < 1 || how.stride < 1 || how.block < 1)
    throw Error(fmt::format("compressed keys: width {}, stride {}, block {}; accepted: positive",
                            how.width, how.stride, how.block));
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.kv_heads;
  out.rows = p.nq;
  out.cols = (p.nk + how.block - 1) / how.block;
  out.s.resize(size_t(out.batch * out.heads * out.rows * out.cols));
  const std::vector<Overlap> table = overlaps(how, out.cols);
  const int64_t count = p.nk < how.width ? 0 : (p.nk - how.width) / how.stride + 1;
  const int64_t stride = matrix::row_stride(std::max<int64_t>(count, 1));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const std::vector<float> keys = means(x.k, b, kv, how, count);
      std::vector<matrix::Line> panels(size_t(matrix::panels(count) * p.dk));
      for (int64_t j = 0; j < count; j += matrix::kPanel)
        matrix::pack_panel(&keys[j * p.dk], std::min(matrix::kPanel, count - j), p.dk,
                           &panels[j / matrix::kPanel * p.dk]);
      parallel_for((p.nq + kRows - 1) / kRows, ctx.threads, [&](int64_t item, int) {
        const int64_t first = item * kRows, rows = std::min(kRows, p.nq - first);
        static thread_local std::vector<float> q, logits, total;
        q.resize(size_t(rows * p.dk)), logits.resize(size_t(rows * stride));
        total.assign(size_t(rows * stride), 0.0f);
        const auto seen = [&](int64_t i) {
          const int64_t keys_seen = x.causal ? first + i + p.offset + 1 : p.nk;
          return keys_seen < how.width ? 0
                                       : std::min(count, (keys_seen - how.width) / how.stride + 1);
        };
        for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
          matrix::load_rows(x.q, b, h, first, rows, q.data());
          for (int64_t j = 0; j < matrix::panels(seen(rows - 1)); ++j)
            matrix::multiply(q.data(), rows, p.dk, &panels[j * p.dk], &logits[j * matrix::kPanel],
                             stride);
          for (int64_t i = 0; i < rows; ++i) {
            float* row = &logits[i * stride];
            const int64_t n = seen(i);
            if (n == 0) continue;
            matrix::scale_cap(row, n, p.scale, 0);
            const float sum = matrix::exponentials(row, n, matrix::max_of(row, n));
            for (int64_t j = 0; j < n; ++j) total[i * stride + j] += row[j] / sum;
          }
        }
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t last = x.causal ? first + i + p.offset : p.nk - 1;
          const int64_t blocks = last < 0 ? 0 : std::min(out.cols, last / how.block + 1);
          float* row = out.row(b, kv, first + i);
          gather(&total[i * stride], seen(i), table, how.maximum, blocks, row);
          std::fill(row + blocks, row + out.cols, -std::numeric_limits<float>::infinity());
        }
      });
    }
  return out;
}

}  // namespace regard::estimate
