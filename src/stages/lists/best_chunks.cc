// Chunks of text, scored as wholes: DHSA and ChunkLLM. See lists.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::lists {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t t = 0; t < a.size(); ++t) sum += a[t] * b[t];
  return sum;
}

// The chunks of [0, n) as ranges.
Ranges chunks_of(const std::vector<int64_t>& starts, int64_t n) {
  Ranges out;
  for (int64_t at = 0; at < n; at = out.back().end) out.push_back(piece(starts, n, at));
  return out;
}

// Sum of tokens over the root of their number, meaned over heads [first, last).
Vector chunk_vector(const View& v, int64_t b, int64_t first, int64_t last, int64_t group, Range r) {
  const int64_t depth = v.size[3];
  Vector out(size_t(depth), 0.0);
  std::vector<float> row(static_cast<size_t>(depth));
  for (int64_t h = first; h < last; ++h)
    for (int64_t j = r.begin; j < r.end; ++j) {
      matrix::load_rows(v, b, h / group, j, 1, row.data());
      for (int64_t t = 0; t < depth; ++t) out[t] += row[t];
    }
  for (double& x : out) x /= std::sqrt(double(r.end - r.begin)) * double(last - first);
  return out;
}

// All heads of one token side by side, times a matrix [1,1,heads depth,width].
Vector adapted(const char* what, const View& v, int64_t b, int64_t token, const Tensor& w) {
  const int64_t depth = v.size[3], width = w.view.size[3];
  if (w.view.size[0] != 1 || w.view.size[1] != 1 || w.view.size[2] != v.size[1] * depth ||
      info(w.view.dtype).block != 1)
    throw Error(
        fmt::format("{} {}; accepted: [1,1,{},any]", what, w.view.shape(), v.size[1] * depth));
  Vector out(size_t(width), 0.0), row(static_cast<size_t>(width));
  std::vector<float> x(static_cast<size_t>(depth));
  for (int64_t h = 0; h < v.size[1]; ++h) {
    matrix::load_rows(v, b, h, token, 1, x.data());
    for (int64_t t = 0; t < depth; ++t) {
      read_row(w.view, 0, 0, h * depth + t, row.data());
      for (int64_t c = 0; c < width; ++c) out[c] += double(x[t]) * row[c];
    }
  }
  return out;
}

// Chunk numbers, best first; a score that is no number comes last.
std::vector<int64_t> ranked(const std::vector<float>& s) {
  std::vector<int64_t> order(s.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int64_t c) { return std::isnan(s[c]) ? -INFINITY : s[c]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return key(a) > key(b); });
  return order;
}

// Keys of one query: the forced ends, then chunks in order until `budget` keys are taken.
void spend(const Ranges& chunks, const std::vector<int64_t>& order, int64_t visible,
           const ChunkBudget& how, Ranges* out) {
  const Range head{0, std::min(how.global, visible)};
  const Range tail{std::max(head.end, visible - how.local), visible};
  out->push_back(head);
  out->push_back(tail);
  int64_t left = how.top_k - (head.end - head.begin) - (tail.end - tail.begin);
  for (size_t n = 0; n < order.size() && left > 0; ++n) {
    const Range& c = chunks[order[n]];
    const int64_t begin = std::max(c.begin, head.end), end = std::min(c.end, tail.begin);
    if (begin >= end) continue;
    const int64_t taken = std::min(left, end - begin);
    out->push_back({begin, begin + taken});
    left -= taken;
  }
}

}  // namespace

Plan best_chunks(const Ctx& ctx, const Inputs& x, const ChunkBudget& how) {
  const StageTimer timer(ctx, "lists.best_chunks");
  const Problem& p = x.problem;
  need_one_sequence(p, "chunks");
  const int64_t heads = how.shared ? 1 : p.heads, each = p.heads / heads;
  const Ranges keys = chunks_of(how.starts, p.nk);
  // Queries [begin, end) of the strip that share one set: cut by position or by number.
  Ranges queries;
  for (int64_t i = 0; i < p.nq; i = queries.back().end) {
    const int64_t at = std::max<int64_t>(0, i + p.offset);
    const int64_t end =
        how.query_block > 0 ? i + how.query_block : piece(how.starts, p.nk, at).end - p.offset;
    queries.push_back({i, std::clamp(end, i + 1, p.nq)});
  }
  std::vector<std::vector<int64_t>> order(size_t(p.batch * heads) * queries.size());
  parallel_for(p.batch * heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / heads, h = bh % heads * each;
    std::vector<Vector> key;
    for (const Range& c : keys) key.push_back(chunk_vector(x.k, b, h, h + each, p.group(), c));
    for (size_t n = 0; n < queries.size(); ++n) {
      const Vector query = chunk_vector(x.q, b, h, h + each, 1, queries[n]);
      std::vector<float> scores;
      for (const Vector& k : key) scores.push_back(float(dot(query, k)));
      order[bh * queries.size() + n] = ranked(scores);
    }
  });
  std::vector<size_t> member(static_cast<size_t>(p.nq));
  for (size_t n = 0; n < queries.size(); ++n)
    std::fill(member.begin() + queries[n].begin, member.begin() + queries[n].end, n);
  return by_row(ctx, x, p.batch, heads, [&](int64_t b, int64_t h, int64_t position, Ranges* out) {
    const size_t n = member[position - p.offset];
    const int64_t seen = x.causal ? std::clamp<int64_t>(position + 1, 0, p.nk) : p.nk;
    spend(keys, order[(b * heads + h) * queries.size() + n], seen, how, out);
  });
}

Plan adapted_chunks(const Ctx& ctx, const Inputs& x, const Tensor& q_adapter,
                    const Tensor& k_adapter, const AdaptedChunks& how) {
  const StageTimer timer(ctx, "lists.adapted_chunks");
  const Problem& p = x.problem;
  need_one_sequence(p, "chunks");
  if (q_adapter.view.size[3] != k_adapter.view.size[3])
    throw Error(fmt::format("q_adapter {} and k_adapter {}: widths differ", q_adapter.view.shape(),
                            k_adapter.view.shape()));
  const Ranges chunks = chunks_of(how.starts, p.nk);
  std::vector<Vector> keys;
  for (int64_t b = 0; b < p.batch; ++b)
    for (const Range& c : chunks)
      keys.push_back(adapted("k_adapter", x.k, b, c.end - 1, k_adapter));
  return by_row(ctx, x, p.batch, 1, [&](int64_t b, int64_t, int64_t position, Ranges* out) {
    if (position < 0) return;
    const Range own = piece(how.starts, p.nk, std::min(position, p.nk - 1));
    out->push_back(chunks.front());
    out->push_back(own);
    const int64_t asks = how.each_query ? position : own.begin - 1;
    const int64_t row = std::clamp<int64_t>(asks - p.offset, 0, p.nq - 1);
    const Vector query = adapted("q_adapter", x.q, b, row, q_adapter);
    std::vector<float> scores;
    for (size_t c = 0; c < chunks.size() && chunks[c].end <= own.begin; ++c)
      scores.push_back(float(dot(query, keys[b * chunks.size() + c])));
    for (const int64_t c : top_indices(scores.data(), int64_t(scores.size()), how.top_k))
      out->push_back(chunks[c]);
  });
}

}  // namespace regard::lists
