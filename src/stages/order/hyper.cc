// HyperAttention: sorted blocks, and a sample of the keys for the rest.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/order.h"
#include "stages/order/project.h"
#include "stages/order/shared_lists.h"
#include "stages/rows.h"

namespace regard::order {

Labels angular(const Ctx& ctx, const View& x, int64_t projections, bool gray_of_bits, int64_t seed,
               const Tensor& given) {
  const StageTimer timer(ctx, "order.angular");
  Labels out;
  out.batch = x.size[0], out.heads = x.size[1], out.n = x.size[2];
  out.count = int64_t(1) << projections;
  out.label.resize(size_t(out.batch * out.heads * out.n));
  const Directions directions(projections, x.size[3], seed, 0, ctx.threads, given.view);
  directions.each(x, ctx.threads, [&](int64_t b, int64_t h, int64_t i, const float* dots) {
    uint32_t bits = 0;
    for (int64_t d = 0; d < projections; ++d) bits |= uint32_t(dots[d] > 0) << d;
    uint32_t place = bits;  // the Gray code's inverse: the exclusive or of all higher bits
    for (uint32_t shift = bits >> 1; shift != 0; shift >>= 1) place ^= shift;
    out.row(b, h)[i] = int32_t(gray_of_bits ? bits ^ bits >> 1 : place);
  });
  return out;
}

namespace {

// Queries [q0, q1) against keys [k0, k1), all of which they may read.
struct Quadrant {
  int64_t q0, q1, k0, k1;
};

using Level = std::vector<Quadrant>;  // of one size, no query in two of them

// Halves of [0, nk), down to min_tokens. leaf: length of what is left.
std::vector<Level> halvings(const Problem& p, int64_t min_tokens, int64_t* leaf) {
  std::vector<Level> levels;
  std::vector<int64_t> starts = {0};
  const auto query_at = [&](int64_t position) {
    return std::clamp<int64_t>(position - p.offset, 0, p.nq);
  };
  for (*leaf = p.nk; *leaf > min_tokens;) {
    const int64_t whole = *leaf;
    *leaf = (whole + 1) / 2;
    Level level;
    std::vector<int64_t> next;
    for (size_t n = 0; n < starts.size(); ++n) {
      const int64_t from = starts[n], mid = from + *leaf;
      const int64_t end = n + 1 < starts.size() ? starts[n + 1] : p.nk;
      next.push_back(from);
      if (mid >= end) continue;
      next.push_back(mid);
      // Queries past the last key belong to the last leaf.
      const int64_t q1 = end == p.nk ? p.nq : query_at(end);
      if (query_at(mid) < q1) level.push_back({query_at(mid), q1, from, mid});
    }
    starts = std::move(next);
    levels.push_back(std::move(level));
  }
  return levels;
}

class Branches {
 public:
  Branches(const Ctx& ctx, const Inputs& x, const Hyper& how)
      : ctx_(ctx),
        x_(x),
        p_(x.problem),
        how_(how),
        queries_(angular(ctx, x.q, how.projections, how.gray_of_bits, how.seed, how.directions)),
        keys_(angular(ctx, x.k, how.projections, how.gray_of_bits, how.seed, how.directions)) {}

  // Two branches for quadrants of different queries and keys: sorted blocks, and samples.
  void add(const Level& level, int64_t number, std::vector<Plan>* out) {
    const StageTimer timer(ctx_, "order.hyper");
    const auto places = std::make_shared<Permutation>();
    places->batch = p_.batch, places->heads = p_.heads, places->n = p_.nq;
    places->token.resize(size_t(p_.batch * p_.heads * p_.nq));
    Tensor weights = make_tensor(DType::f32, {p_.batch, p_.kv_heads, 1, p_.nk});
    SharedLists blocks(p_.batch, p_.kv_heads, p_.nq), samples(p_.batch, p_.kv_heads, p_.nq);
    parallel_for(p_.batch * p_.kv_heads, ctx_.threads, [&](int64_t item, int) {
      const int64_t b = item / p_.kv_heads, kv = item % p_.kv_heads;
      for (int64_t h = kv * p_.group(); h < (kv + 1) * p_.group(); ++h) {
        uint32_t* place = &places->token[(b * p_.heads + h) * p_.nq];
        std::iota(place, place + p_.nq, 0u);
        for (const Quadrant& q : level) sort(queries_.row(b, h), place + q.q0, place + q.q1);
      }
      float* weight = reinterpret_cast<float*>(weights.view.at(b, kv, 0));
      if (const View& own = x_.score.key_bias.view; own)
        read_row(own, own.size[0] == 1 ? 0 : b, own.size[1] == 1 ? 0 : kv, 0, weight);
      blocks.open(item), samples.open(item);  // list 0, empty: queries outside all quadrants
      for (size_t n = 0; n < level.size(); ++n)
        add(level[n], number, item, before_ + int64_t(n), keys_.row(b, kv), weight, &blocks,
            &samples);
    });
    before_ += int64_t(level.size());
    out->push_back(Plan::columns(p_, blocks.columns(p_.nk)).order({places, nullptr}));
    Score weighted;
    weighted.key_bias = weights;
    out->push_back(
        Plan::columns(p_, samples.columns(p_.nk)).order({places, nullptr}).score(weighted));
  }

 private:
  static void sort(const int32_t* rank, uint32_t* first, uint32_t* last) {
    std::stable_sort(first, last, [&](uint32_t a, uint32_t b) { return rank[a] < rank[b]; });
  }

  // Times that each of nk places is drawn for the n-th quadrant.
  std::vector<int64_t> draws(const Quadrant& q, int64_t number, int64_t item, int64_t n) const {
    const int64_t nk = q.k1 - q.k0;
    std::vector<int64_t> times(size_t(nk), 0);
    const View& given = how_.places.view;
    if (!given) {
      for (int64_t s = 0; s < how_.samples; ++s)
        ++times[int64_t(double(nk) * random_uniform(how_.seed, 1 + number, q.k0, s))];
      return times;
    }
    if ((given.size[0] != 1 && given.size[0] != p_.batch) ||
        (given.size[1] != 1 && given.size[1] != p_.kv_heads) || given.size[2] <= n ||
        given.size[3] != how_.samples || info(given.dtype).block != 1)
      throw Error(fmt::format("hyper: places {}; accepted: [1|{},1|{},{} or more,{}]",
                              given.shape(), p_.batch, p_.kv_heads, n + 1, how_.samples));
    std::vector<double> row(size_t(how_.samples));
    read_row(given, given.size[0] == 1 ? 0 : item / p_.kv_heads,
             given.size[1] == 1 ? 0 : item % p_.kv_heads, n, row.data());
    for (const double place : row) {
      if (!(place >= 0 && place < double(nk)))
        throw Error(fmt::format("hyper: place {}; accepted: 0 to {}", place, nk - 1));
      ++times[size_t(place)];
    }
    return times;
  }

  void add(const Quadrant& q, int64_t number, int64_t item, int64_t n, const int32_t* rank,
           float* weight, SharedLists* blocks, SharedLists* samples) const {
    const int64_t nk = q.k1 - q.k0, nq = q.q1 - q.q0;
    std::vector<uint32_t> sorted(static_cast<size_t>(nk));
    std::iota(sorted.begin(), sorted.end(), uint32_t(q.k0));
    sort(rank, sorted.data(), sorted.data() + nk);
    const std::vector<int64_t> drawn = draws(q, number, item, n);  // by place
    for (int64_t j = 0; j < nk; ++j)
      if (drawn[j] > 0)
        weight[sorted[j]] += float(std::log(double(drawn[j] * nk) / double(how_.samples)));
    const int64_t count = (nk + how_.block - 1) / how_.block, rows = (nq + count - 1) / count;
    for (int64_t first = 0; first < nq; first += rows) {
      const int64_t own0 = first / rows * how_.block, own1 = std::min(own0 + how_.block, nk);
      std::vector<uint32_t>& block = blocks->open(item);
      block.assign(sorted.begin() + own0, sorted.begin() + own1);
      std::sort(block.begin(), block.end());
      std::vector<uint32_t>& sample = samples->open(item);
      for (int64_t j = 0; j < nk; ++j)
        if (drawn[j] > 0 && (j < own0 || j >= own1)) sample.push_back(sorted[j]);
      std::sort(sample.begin(), sample.end());
      for (int64_t i = first; i < std::min(first + rows, nq); ++i) {
        blocks->reads_last(item, q.q0 + i);
        samples->reads_last(item, q.q0 + i);
      }
    }
  }

  const Ctx& ctx_;
  const Inputs& x_;
  const Problem& p_;
  const Hyper& how_;
  const Labels queries_, keys_;
  int64_t before_ = 0;  // quadrants of the levels so far
};

// Every query reads its own leaf; causality comes on top.
Plan leaves(const Problem& p, int64_t leaf, const std::vector<Level>& levels) {
  std::vector<int64_t> cuts = {0};
  for (const Level& level : levels)
    for (const Quadrant& q : level) cuts.push_back(q.k1);
  std::sort(cuts.begin(), cuts.end());
  SharedLists lists(1, 1, p.nq);
  int64_t opened = -1;
  for (int64_t i = 0; i < p.nq; ++i) {
    const int64_t position = std::clamp<int64_t>(i + p.offset, 0, p.nk - 1);
    const int64_t from = *(std::upper_bound(cuts.begin(), cuts.end(), position) - 1);
    if (from != opened) {
      std::vector<uint32_t>& list = lists.open(0);
      for (int64_t j = from; j < std::min(from + leaf, p.nk); ++j) list.push_back(uint32_t(j));
      opened = from;
    }
    lists.reads_last(0, i);
  }
  return Plan::columns(p, lists.columns(p.nk));
}

}  // namespace

Plan hyper(const Ctx& ctx, const Inputs& x, const Hyper& how) {
  const Problem& p = x.problem;
  need_one_sequence(p, "hyper");
  if (p.nk <= how.min_tokens) return Plan::all(p);
  Branches branches(ctx, x, how);
  std::vector<Plan> parts;
  if (!x.causal) {
    branches.add({{0, p.nq, 0, p.nk}}, 0, &parts);
    return Plan::same(std::move(parts));
  }
  int64_t leaf = 0;
  const std::vector<Level> levels = halvings(p, how.min_tokens, &leaf);
  parts.push_back(leaves(p, leaf, levels));
  for (size_t n = 0; n < levels.size(); ++n)
    if (!levels[n].empty()) branches.add(levels[n], int64_t(n), &parts);
  return Plan::same(std::move(parts));
}

}  // namespace regard::order
