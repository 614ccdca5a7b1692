// Single keys by exact or given scores. See lists.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

#include "core/parallel.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::lists {

Plan top_keys(const Ctx& ctx, const Inputs& x, int64_t count) {
  const StageTimer timer(ctx, "lists.top_keys");
  const Problem& p = x.problem;
  need_one_sequence(p, "top keys");
  constexpr int64_t kRows = 16;
  const int64_t parts = (p.nq + kRows - 1) / kRows, stride = matrix::row_stride(p.nk);
  std::vector<std::vector<uint32_t>> kept(size_t(p.batch * p.heads * p.nq));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(x.k, b, kv, ctx.threads);
      parallel_for(p.group() * parts, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / parts, first = item % parts * kRows;
        const int64_t rows = std::min(kRows, p.nq - first);
        std::vector<float> q(size_t(rows * p.dk)), logits(size_t(rows * stride));
        matrix::load_rows(x.q, b, h, first, rows, q.data());
        for (int64_t c = 0; c < matrix::panels(p.nk); ++c)
          matrix::multiply(q.data(), rows, p.dk, keys.panel(c), &logits[c * matrix::kPanel],
                           stride);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t seen =
              x.causal ? std::clamp<int64_t>(first + i + p.offset + 1, 0, p.nk) : p.nk;
          const auto best = top_indices(&logits[i * stride], seen, count);
          kept[(b * p.heads + h) * p.nq + first + i].assign(best.begin(), best.end());
        }
      });
    }
  return Plan::columns(p, keys_of(p, p.batch, p.heads, 1, kept));
}

Plan top_scored(const Ctx& ctx, const Inputs& x, const Tensor& scores, int64_t count) {
  const StageTimer timer(ctx, "lists.top_scored");
  const Problem& p = x.problem;
  need_one_sequence(p, "top keys");
  // A causal query's best keys are the last one's that were not yet beaten: key j is read from
  // position j on until `count` better keys have come, at position beaten[j].
  std::vector<int64_t> beaten(size_t(p.batch * p.kv_heads * p.nk), p.nk + p.nq);
  parallel_for(p.batch * p.kv_heads, ctx.threads, [&](int64_t item, int) {
    std::vector<float> s(size_t(p.nk));
    read_row(scores.view, item / p.kv_heads, item % p.kv_heads, 0, s.data());
    int64_t* out = &beaten[item * p.nk];
    const auto better = [&](int64_t a, int64_t b) { return s[a] != s[b] ? s[a] > s[b] : a < b; };
    std::priority_queue<int64_t, std::vector<int64_t>, decltype(better)> best(better);
    for (int64_t j = 0; j < p.nk; ++j) {
      if (std::isnan(s[j]) || s[j] == -std::numeric_limits<float>::infinity()) {
        out[j] = -1;
        continue;
      }
      best.push(j);
      if (int64_t(best.size()) <= count) continue;
      out[best.top()] = j;
      best.pop();
    }
  });
  return by_row(ctx, x, p.batch, p.kv_heads,
                [&](int64_t b, int64_t h, int64_t position, Ranges* out) {
                  const int64_t* until = &beaten[(b * p.kv_heads + h) * p.nk];
                  const int64_t now = x.causal ? position : p.nk;
                  for (int64_t j = 0; j < std::min(now + 1, p.nk); ++j)
                    if (until[j] > std::min(now, p.nk - 1)) out->push_back({j, j + 1});
                });
}

}  // namespace regard::lists
