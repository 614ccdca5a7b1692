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
constexpr int64_t kRows = 16;  // queries a part

// Lists of keys of a few queries, one after the other.
struct Lists {
  std::vector<uint32_t> keys;
  std::vector<int64_t> lengths;
};

void add(const float* s, int64_t n, const scan::Cut& cut, Lists* out) {
  const size_t before = out->keys.size();
  scan::append(s, n, cut, &out->keys);
  out->lengths.push_back(int64_t(out->keys.size() - before));
}

// Parts in order make the lists of all queries of every head; they are given up.
Plan single_keys(const Problem& p, std::vector<Lists>* parts) {
  IndexList list;
  list.batch = p.batch, list.heads = p.heads, list.rows = p.nq, list.cols = p.nk;
  list.bq = list.bk = 1;
  size_t total = 0;
  for (const Lists& part : *parts) total += part.keys.size();
  list.index.reserve(total);
  list.start.push_back(0);
  for (Lists& part : *parts) {
    list.index.insert(list.index.end(), part.keys.begin(), part.keys.end());
    for (const int64_t n : part.lengths) list.start.push_back(list.start.back() + n);
    part = {};
  }
  return Plan::columns(p, std::move(list));
}

int64_t parts_of(const Problem& p) { return p.batch * p.heads * ((p.nq + kRows - 1) / kRows); }

// f(q.k over the first `channels` channels, keys that the query sees, number of the part) for every
// query of every head; the queries of a part come in order.
template <class F>
void each_logits(const Ctx& ctx, const Inputs& x, int64_t channels, const F& f) {
  const Problem& p = x.problem;
  View q = x.q, k = x.k;
  q.size[3] = k.size[3] = channels;
  const int64_t parts = (p.nq + kRows - 1) / kRows, stride = matrix::row_stride(p.nk);
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
          f(&logits[i * stride], seen, (b * p.heads + h) * parts + item % parts);
        }
      });
    }
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

std::vector<Plan> top_keys(const Ctx& ctx, const Inputs& x, const std::vector<int64_t>& counts) {
  const StageTimer timer(ctx, "lists.top_keys");
  need_one_sequence(x.problem, "top keys");
  std::vector<std::vector<Lists>> parts(counts.size(),
                                        std::vector<Lists>(size_t(parts_of(x.problem))));
  each_logits(ctx, x, x.problem.dk, [&](const float* s, int64_t seen, int64_t part) {
    for (size_t n = 0; n < counts.size(); ++n)
      add(s, seen, scan::best(s, seen, counts[n]), &parts[n][size_t(part)]);
  });
  std::vector<Plan> out;
  for (std::vector<Lists>& lists : parts) out.push_back(single_keys(x.problem, &lists));
  return out;
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
  std::vector<Lists> parts(size_t(parts_of(x.problem)));
  each_logits(ctx, x, channels, [&](const float* s, int64_t seen, int64_t part) {
    const scan::Moments m = scan::moments(s, seen);
    const double least = seen <= count ? -kInf : m.mean + quantile[seen] * m.deviation;
    Lists& out = parts[size_t(part)];
    const size_t before = out.keys.size();
    scan::at_least(s, seen, least, &out.keys);
    out.lengths.push_back(int64_t(out.keys.size() - before));
  });
  return single_keys(x.problem, &parts);
}

namespace {

// Ascending single keys -> the blocks of which they are more than half.
void to_blocks(int64_t block, int64_t nk, Ranges* keys) {
  Ranges out;
  for (size_t first = 0, last = 0; first < keys->size(); first = last) {
    const int64_t c = (*keys)[first].begin / block;
    while (last < keys->size() && (*keys)[last].begin / block == c) ++last;
    const Range whole{c * block, std::min((c + 1) * block, nk)};
    if (2 * int64_t(last - first) > whole.end - whole.begin) out.push_back(whole);
  }
  *keys = std::move(out);
}

}  // namespace

Plan top_scored(const Ctx& ctx, const Inputs& x, const Tensor& scores, const TopScored& how) {
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
      if (int64_t(best.size()) <= how.count) continue;
      out[best.top()] = j;
      best.pop();
    }
  });
  return by_row(ctx, x, p.batch, p.kv_heads,
                [&](int64_t b, int64_t h, int64_t position, Ranges* out) {
                  const int64_t* until = &beaten[(b * p.kv_heads + h) * p.nk];
                  const int64_t now = x.causal && !how.shared ? position : p.nk;
                  for (int64_t j = 0; j < std::min(now + 1, p.nk); ++j)
                    if (until[j] > std::min(now, p.nk - 1)) out->push_back({j, j + 1});
                  if (how.block > 1) to_blocks(how.block, p.nk, out);
                });
}

}  // namespace regard::lists
