// Routing Transformer: balanced clusters. Every centroid takes the tokens most similar to it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/matrix.h"
#include "stages/order.h"
#include "stages/order/shared_lists.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::order {
namespace {

// Layer norm without scale and shift: mean 0, length sqrt(d).
Tensor normed(const Ctx& ctx, const View& x) {
  Tensor out = make_tensor(DType::f32, x.size);
  parallel_for(x.size[0] * x.size[1], ctx.threads, [&](int64_t bh, int) {
    const int64_t d = x.size[3];
    for (int64_t i = 0; i < x.size[2]; ++i) {
      float* row = reinterpret_cast<float*>(out.view.at(bh / x.size[1], bh % x.size[1], i));
      matrix::load_rows(x, bh / x.size[1], bh % x.size[1], i, 1, row);
      double mean = 0, square = 0;
      for (int64_t t = 0; t < d; ++t) mean += row[t] / double(d);
      for (int64_t t = 0; t < d; ++t) square += (row[t] - mean) * (row[t] - mean) / double(d);
      const double factor = 1 / std::sqrt(square + 1e-6);
      for (int64_t t = 0; t < d; ++t) row[t] = float((row[t] - mean) * factor);
    }
  });
  return out;
}

// Centroids of every (batch item, KV head): given ones, or k-means of the keys.
struct Centroids {
  int64_t count = 0, depth = 0, heads = 0;
  std::vector<float> rows;  // [batch, heads, count, depth]
  const float* row(int64_t b, int64_t h) const { return &rows[(b * heads + h) * count * depth]; }
};

Centroids centroids(const Ctx& ctx, const Problem& p, const View& keys, const Routing& how) {
  Centroids out;
  out.depth = p.dk;
  const View& given = how.centroids.view;
  if (!given) {
    const int64_t count =
        how.clusters ? how.clusters : int64_t(std::lround(std::sqrt(double(p.nk))));
    Clusters found = kmeans(ctx, keys, count, how.iterations, how.seed);
    out.count = found.labels.count, out.heads = p.kv_heads;
    out.rows = std::move(found.centroids);
    return out;
  }
  if ((given.size[0] != 1 && given.size[0] != p.batch) ||
      (given.size[1] != 1 && given.size[1] != p.heads) || given.size[2] < 1 ||
      given.size[3] != p.dk || info(given.dtype).block != 1)
    throw Error(fmt::format("routing: centroids {}; accepted: [1|{},1|{},clusters,{}]",
                            given.shape(), p.batch, p.heads, p.dk));
  out.count = given.size[2], out.heads = p.heads;
  out.rows.resize(size_t(p.batch * p.heads * out.count * p.dk));
  for (int64_t bh = 0; bh < p.batch * p.heads; ++bh)
    matrix::load_rows(given, given.size[0] == 1 ? 0 : bh / p.heads,
                      given.size[1] == 1 ? 0 : bh % p.heads, 0, out.count,
                      &out.rows[bh * out.count * p.dk]);
  return out;
}

// The `window` tokens of one head nearest to each centroid, ascending.
std::vector<std::vector<int64_t>> members(const View& tokens, int64_t b, int64_t h,
                                          const float* centroid, int64_t count, int64_t window) {
  const int64_t n = tokens.size[2], depth = tokens.size[3], stride = matrix::row_stride(n);
  const matrix::Packed packed = matrix::pack_keys(tokens, b, h, 1);
  constexpr int64_t kRows = 8;  // centroids at once
  std::vector<std::vector<int64_t>> out;
  std::vector<float> dots(size_t(kRows * stride));
  for (int64_t c0 = 0; c0 < count; c0 += kRows) {
    const int64_t rows = std::min(kRows, count - c0);
    for (int64_t panel = 0; panel < matrix::panels(n); ++panel)
      matrix::multiply(centroid + c0 * depth, rows, depth, packed.panel(panel),
                       &dots[panel * matrix::kPanel], stride);
    for (int64_t c = 0; c < rows; ++c)
      out.push_back(top_indices(&dots[c * stride], n, std::min(window, n)));
  }
  return out;
}

// For every token the clusters that took it.
std::vector<std::vector<int32_t>> taken_by(const std::vector<std::vector<int64_t>>& members,
                                           int64_t n) {
  std::vector<std::vector<int32_t>> out(static_cast<size_t>(n));
  for (size_t c = 0; c < members.size(); ++c)
    for (const int64_t i : members[c]) out[size_t(i)].push_back(int32_t(c));
  return out;
}

// One branch for the first cluster of every query, one for the second, and so on.
Plan averaged(const Ctx& ctx, const Problem& p, const View& q, const View& k, const Centroids& mu,
              int64_t q_window, int64_t k_window) {
  std::vector<std::vector<std::vector<int64_t>>> keys(size_t(p.batch * p.heads));
  std::vector<std::vector<std::vector<int32_t>>> sets(keys.size());
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    const float* centroid = mu.row(b, mu.heads == p.heads ? h : h / p.group());
    keys[size_t(bh)] = members(k, b, h / p.group(), centroid, mu.count, k_window);
    sets[size_t(bh)] = taken_by(members(q, b, h, centroid, mu.count, q_window), p.nq);
  });
  size_t most = 1;
  for (const auto& head : sets)
    for (const auto& set : head) most = std::max(most, set.size());
  if (most > 16)
    throw Error(
        fmt::format("routing: a query is in {} clusters; accepted: up to 16 to average", most));
  Tensor gate = make_tensor(DType::f32, {p.batch, p.heads, p.nq, int64_t(most)});
  std::vector<Plan> branches;
  for (size_t n = 0; n < most; ++n) {
    SharedLists lists(p.batch, p.heads, p.nq);
    for (int64_t bh = 0; bh < p.batch * p.heads; ++bh) {
      lists.open(bh);  // list 0, empty: queries of fewer clusters
      for (const std::vector<int64_t>& list : keys[size_t(bh)])
        lists.open(bh).assign(list.begin(), list.end());
      for (int64_t i = 0; i < p.nq; ++i) {
        const std::vector<int32_t>& set = sets[size_t(bh)][size_t(i)];
        lists.reads(bh, i, n < set.size() ? set[n] + 1 : 0);
        float* const weight = reinterpret_cast<float*>(gate.view.at(bh / p.heads, bh % p.heads, i));
        weight[n] = n < set.size() ? 1 / (float(set.size()) + 0.01f) : 0;
      }
    }
    branches.push_back(Plan::columns(p, lists.columns(p.nk)));
  }
  return Plan::gated(std::move(branches), gate);
}

}  // namespace

Plan routing(const Ctx& ctx, const Inputs& x, const Routing& how) {
  const Problem& p = x.problem;
  need_one_sequence(p, "routing");
  const Tensor q = normed(ctx, x.q), k = normed(ctx, x.k);
  const Centroids mu = centroids(ctx, p, k.view, how);
  const StageTimer timer(ctx, "order.routing");
  const auto window = [&](int64_t n) {
    return how.window ? how.window : (n + mu.count - 1) / mu.count;
  };
  if (how.average) return averaged(ctx, p, q.view, k.view, mu, window(p.nq), window(p.nk));
  // Queries of the same clusters share a list and stand together: in order of their lists.
  Labels labels{p.batch, p.heads, p.nq, 0, {}};
  labels.label.resize(size_t(p.batch * p.heads * p.nq));
  std::vector<std::vector<std::vector<uint32_t>>> lists(size_t(p.batch * p.heads));
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    const float* centroid = mu.row(b, mu.heads == p.heads ? h : h / p.group());
    const auto keys = members(k.view, b, h / p.group(), centroid, mu.count, window(p.nk));
    const auto sets = taken_by(members(q.view, b, h, centroid, mu.count, window(p.nq)), p.nq);
    std::map<std::vector<int32_t>, int32_t> known;
    for (int64_t i = 0; i < p.nq; ++i) {
      const auto [at, fresh] = known.emplace(sets[size_t(i)], int32_t(known.size()));
      labels.row(b, h)[i] = at->second;
      if (!fresh) continue;
      std::vector<uint32_t>& list = lists[size_t(bh)].emplace_back();
      for (const int32_t c : sets[size_t(i)])
        list.insert(list.end(), keys[size_t(c)].begin(), keys[size_t(c)].end());
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
  });
  const auto places = by_label(labels);
  SharedLists shared(p.batch, p.heads, p.nq);
  for (int64_t bh = 0; bh < p.batch * p.heads; ++bh) {
    for (std::vector<uint32_t>& list : lists[size_t(bh)]) shared.open(bh) = std::move(list);
    for (int64_t n = 0; n < p.nq; ++n)
      shared.reads(bh, n, labels.label[size_t(bh * p.nq + places->token[size_t(bh * p.nq + n)])]);
  }
  return Plan::columns(p, shared.columns(p.nk)).order({places, nullptr});
}

}  // namespace regard::order
