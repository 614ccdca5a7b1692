// Balanced clusters by asymmetric hashing. See order.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/order.h"
#include "stages/order/shared_lists.h"
#include "stages/random.h"
#include "stages/rows.h"

namespace regard::order {
namespace {

// Rows of one head, their squared lengths, and the greatest of these.
struct Rows {
  int64_t n, depth;
  std::vector<float> x;
  std::vector<double> square;
  double most = 0;

  Rows(const View& v, int64_t b, int64_t h)
      : n(v.size[2]), depth(v.size[3]), x(size_t(n * depth)), square(static_cast<size_t>(n)) {
    matrix::load_rows(v, b, h, 0, n, x.data());
    for (int64_t i = 0; i < n; ++i) {
      const float* row = &x[size_t(i * depth)];
      square[size_t(i)] = std::inner_product(row, row + depth, row, 0.0, std::plus<>(),
                                             [](float a, float c) { return double(a) * c; });
      most = std::max(most, square[size_t(i)]);
    }
  }

  // Tokens by their product with [direction, last], the vector lengthened to sqrt(limit).
  std::vector<uint32_t> sorted(const double* direction, double last, double limit) const {
    std::vector<double> at(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      double sum = std::sqrt(std::max(limit - square[size_t(i)], 0.0)) * last;
      for (int64_t t = 0; t < depth; ++t) sum += double(x[size_t(i * depth + t)]) * direction[t];
      at[size_t(i)] = sum == sum ? sum : 0;  // NaN has no place
    }
    std::vector<uint32_t> token(static_cast<size_t>(n));
    std::iota(token.begin(), token.end(), 0u);
    std::stable_sort(token.begin(), token.end(),
                     [&](uint32_t a, uint32_t b) { return at[a] < at[b]; });
    return token;
  }
};

// [rounds][depth + 2]
std::vector<double> directions(int64_t depth, const Smyrf& how) {
  std::vector<double> out(size_t(how.rounds * (depth + 2)));
  const View& v = how.directions.view;
  if (v && (v.size[0] != 1 || v.size[1] != 1 || v.size[2] != how.rounds || v.size[3] != depth + 2 ||
            info(v.dtype).block != 1))
    throw Error(
        fmt::format("hash directions {}; accepted: [1,1,{},{}]", v.shape(), how.rounds, depth + 2));
  for (int64_t r = 0; r < how.rounds; ++r)
    for (int64_t c = 0; c < depth + 2 && !v; ++c)
      out[size_t(r * (depth + 2) + c)] = random_normal(how.seed, 1, r, c);
  for (int64_t r = 0; r < how.rounds && v; ++r) read_row(v, 0, 0, r, &out[size_t(r * (depth + 2))]);
  return out;
}

}  // namespace

Plan smyrf(const Ctx& ctx, const Inputs& x, const Smyrf& how) {
  const StageTimer timer(ctx, "order.smyrf");
  const Problem& p = x.problem;
  need_one_sequence(p, "hashed clusters");
  const std::vector<double> all = directions(p.dk, how);
  const int64_t parts = (p.nk + how.cluster - 1) / how.cluster, each = (p.nq + parts - 1) / parts;
  SharedLists lists(p.batch, p.heads, p.nq);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const Rows q(x.q, bh / p.heads, bh % p.heads);
    const Rows k(x.k, bh / p.heads, bh % p.heads / p.group());
    std::vector<std::vector<uint32_t>> reads(static_cast<size_t>(p.nq));
    for (int64_t r = 0; r < how.rounds; ++r) {
      const double* const direction = &all[size_t(r * (p.dk + 2))];
      const auto keys = k.sorted(direction, direction[p.dk], q.most + k.most);
      const auto queries = q.sorted(direction, direction[p.dk + 1], q.most + k.most);
      for (int64_t n = 0; n < p.nq; ++n) {
        const int64_t first = n / each * how.cluster;
        reads[queries[size_t(n)]].insert(reads[queries[size_t(n)]].end(), keys.begin() + first,
                                         keys.begin() + std::min(first + how.cluster, p.nk));
      }
    }
    for (int64_t i = 0; i < p.nq; ++i) {
      std::vector<uint32_t>& list = reads[size_t(i)];
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
      lists.open(bh) = std::move(list);
      lists.reads_last(bh, i);
    }
  });
  return Plan::columns(p, lists.columns(p.nk));
}

}  // namespace regard::order

namespace regard::lists {

std::shared_ptr<const BitMask> all_but(const Plan& plan) {
  auto out = std::make_shared<BitMask>(expand(plan, 0));
  for (uint64_t& word : out->words) word = ~word;
  return out;
}

}  // namespace regard::lists
