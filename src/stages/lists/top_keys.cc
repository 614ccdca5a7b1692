// Single keys by exact or given scores. See lists.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"
#include "stages/scan.h"
#include "stages/select.h"

namespace regard::lists {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// f(q.k over the first `channels` channels, keys the query sees, list) for every query of every
// head: single keys.
template <class F>
Plan keys_by_logits(const Ctx& ctx, const Inputs& x, int64_t channels, const F& f) {
  const Problem& p = x.problem;
  View q = x.q, k = x.k;
  q.size[3] = k.size[3] = channels;
  constexpr int64_t kRows = 16;
  const int64_t parts = (p.nq + kRows - 1) / kRows, stride = matrix::row_stride(p.nk);
  std::vector<std::vector<uint32_t>> kept(size_t(p.batch * p.heads * p.nq));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(k, b, kv, ctx.threads);
      parallel_for(p.group() * parts, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / parts, first = item % parts * kRows;
        const int64_t rows = std::min(kRows, p.nq - first);
        static thread_local std::vector<float> queries, logits;
        queries.resize(size_t(rows * channels)), logits.resize(size_t(rows * stride));
        matrix::load_rows(q, b, h, first, rows, queries.data());
        const int64_t last =
            x.causal ? std::clamp<int64_t>(first + rows + p.offset, 0, p.nk) : p.nk;
        for (int64_t c = 0; c < matrix::panels(last); ++c)
          matrix::multiply(queries.data(), rows, channels, keys.panel(c),
                           &logits[c * matrix::kPanel], stride);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t seen =
              x.causal ? std::clamp<int64_t>(first + i + p.offset + 1, 0, p.nk) : p.nk;
          f(&logits[i * stride], seen, &kept[(b * p.heads + h) * p.nq + first + i]);
        }
      });
    }
  return Plan::columns(p, keys_of(p, p.batch, p.heads, 1, kept));
}

// z with P(Z > z) = share for a standard normal Z, by bisection.
double upper_quantile(double share) {
  double low = -40, high = 40;
  for (int n = 0; n < 64; ++n) {
    const double z = (low + high) / 2;
    (std::erfc(z / std::sqrt(2.0)) / 2 > share ? low : high) = z;
  }
  return low;
}

}  // namespace

Plan top_keys(const Ctx& ctx, const Inputs& x, int64_t count) {
  const StageTimer timer(ctx, "lists.top_keys");
  need_one_sequence(x.problem, "top keys");
  return keys_by_logits(ctx, x, x.problem.dk,
                        [&](const float* s, int64_t seen, std::vector<uint32_t>* out) {
                          const auto best = top_indices(s, seen, count);
                          out->assign(best.begin(), best.end());
                        });
}

Plan statistical_top(const Ctx& ctx, const Inputs& x, int64_t channels, int64_t count) {
  const StageTimer timer(ctx, "lists.statistical_top");
  need_one_sequence(x.problem, "statistical top-k");
  const int64_t block = info(x.k.dtype).block;
  if (channels < 1 || channels > x.problem.dk || channels % block != 0)
    throw Error(fmt::format("statistical top-k: {} channels of {} keys; accepted: 1 to {}, in {}s",
                            channels, x.k.shape(), x.problem.dk, block));
  std::vector<double> quantile(size_t(x.problem.nk + 1));  // by the number of keys seen
  parallel_for(x.problem.nk - std::min(count, x.problem.nk), ctx.threads, [&](int64_t n, int) {
    quantile[count + 1 + n] = upper_quantile(double(count) / double(count + 1 + n));
  });
  return keys_by_logits(
      ctx, x, channels, [&](const float* s, int64_t seen, std::vector<uint32_t>* out) {
        const scan::Moments m = scan::moments(s, seen);
        const double least = seen <= count ? -kInf : m.mean + quantile[seen] * m.deviation;
        scan::at_least(s, seen, least, out);
      });
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
