// Random problems, tensors and plans for property tests.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "regard/plan.h"

namespace regard::test {

using Rng = std::mt19937_64;

inline int64_t pick(Rng& g, int64_t lo, int64_t hi) {
  return std::uniform_int_distribution<int64_t>(lo, hi)(g);
}
inline bool coin(Rng& g, double p = 0.5) { return std::bernoulli_distribution(p)(g); }

inline Tensor random_tensor(Rng& g, std::array<int64_t, 4> size, DType t = DType::f32,
                            double sigma = 1) {
  Tensor out = make_tensor(t, size);
  std::normal_distribution<double> normal(0, sigma);
  std::vector<double> row(static_cast<size_t>(size[3]));
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c) {
        for (double& x : row) x = normal(g);
        write_row(out.view, a, b, c, row.data());
      }
  return out;
}

// The last query meets the last key.
inline Problem problem(int64_t heads, int64_t kv, int64_t nq, int64_t nk, int64_t dk, int64_t dv,
                       int64_t batch = 1) {
  Problem p;
  p.batch = batch, p.heads = heads, p.kv_heads = kv;
  p.nq = nq, p.nk = nk, p.dk = dk, p.dv = dv;
  p.scale = 1 / std::sqrt(float(dk));
  p.offset = nk - nq;
  return p;
}

inline Problem random_problem(Rng& g, int64_t max_tokens = 70) {
  Problem p;
  p.batch = pick(g, 1, 2);
  p.kv_heads = pick(g, 1, 2);
  p.heads = p.kv_heads * pick(g, 1, 3);
  p.nq = pick(g, 1, max_tokens);
  p.nk = pick(g, 1, max_tokens);
  p.dk = pick(g, 1, 9);
  p.dv = pick(g, 1, 9);
  p.scale = 1 / std::sqrt(float(p.dk));
  p.offset = coin(g, 0.7) ? p.nk - p.nq : pick(g, -3, p.nk);
  return p;
}

inline TileBits random_bits(Rng& g, const Problem& p, int64_t keys, int bq, int bk,
                            double density) {
  const int64_t heads[] = {1, p.kv_heads, p.heads};
  TileBits bits(coin(g) ? 1 : p.batch, heads[pick(g, 0, 2)], (p.nq + bq - 1) / bq,
                (keys + bk - 1) / bk);
  for (int64_t b = 0; b < bits.batch; ++b)
    for (int64_t h = 0; h < bits.heads; ++h)
      for (int64_t r = 0; r < bits.rows; ++r)
        for (int64_t c = 0; c < bits.cols; ++c) bits.set(b, h, r, c, coin(g, density));
  return bits;
}

inline std::shared_ptr<BitMask> random_mask(Rng& g, const Problem& p, int64_t keys) {
  auto m = std::make_shared<BitMask>();
  m->batch = coin(g) ? 1 : p.batch;
  m->heads = coin(g) ? 1 : p.heads;
  m->nq = p.nq;
  m->nk = keys;
  m->words.resize(size_t(m->batch * m->heads * m->nq * m->words_per_row()));
  for (int64_t row = 0; row < m->batch * m->heads * m->nq; ++row)
    for (int64_t j = 0; j < keys; ++j)
      if (coin(g, 0.8)) m->words[size_t(row * m->words_per_row() + j / 64)] |= 1ull << (j % 64);
  return m;
}

inline std::shared_ptr<const Permutation> random_permutation(Rng& g, int64_t batch, int64_t heads,
                                                             int64_t n) {
  auto o = std::make_shared<Permutation>();
  o->batch = batch, o->heads = heads, o->n = n;
  o->token.resize(size_t(batch * heads * n));
  for (int64_t row = 0; row < batch * heads; ++row) {
    const auto first = o->token.begin() + row * n;
    std::iota(first, first + n, 0u);
    std::shuffle(first, first + n, g);
  }
  return o;
}

// Permutes the axes of a plan of one branch, queries, keys or both.
inline void random_order(Rng& g, Plan* plan) {
  const Problem& p = plan->problem;
  const int64_t heads[] = {1, p.kv_heads, p.heads};
  Order o;
  if (coin(g, 0.7))
    o.queries = random_permutation(g, coin(g) ? 1 : p.batch, coin(g) ? 1 : p.heads, p.nq);
  if (coin(g, 0.7))
    o.keys = random_permutation(g, coin(g) ? 1 : p.batch, heads[pick(g, 0, 2)],
                                source_keys(p, plan->branches[0]));
  if (plan->branches[0].source.kind == SourceKind::pooled &&
      plan->branches[0].cover.kind == CoverKind::band)
    return;
  plan->order(o);
}

// Lets tile rows with random partners read one list (the partner's).
inline void random_sharing(Rng& g, Plan* plan) {
  const IndexList* l = plan->branches[0].cover.list.get();
  if (!l || l->lists() == 0) return;
  auto shared = std::make_shared<IndexList>(*l);
  for (int64_t n = 0; n < l->lists(); ++n)
    shared->list_of.push_back(uint32_t(pick(g, 0, l->lists() - 1)));
  plan->branches[0].cover.list = shared;
  plan->lowered = false;
}

// A plan of one branch with any cover, rule and source; scores and norms are left plain.
inline Plan random_plan(Rng& g, const Problem& p) {
  const bool pooled = coin(g, 0.2);
  const int block = pooled ? int(pick(g, 2, 9)) : 1;
  const int64_t keys = (p.nk + block - 1) / block;
  const int bq = int(pick(g, 1, 20)), bk = int(pick(g, 1, 20));
  Plan plan = Plan::all(p);
  switch (pick(g, 0, 3)) {
    case 0:
      break;
    case 1:
      plan = Plan::band(p, pick(g, -1, 20), pick(g, -1, 5), pick(g, 0, 4));
      break;
    case 2:
      plan = Plan::tiles(p, bq, bk, random_bits(g, p, keys, bq, bk, 0.5));
      break;
    default: {
      Plan tiles = Plan::tiles(p, bq, 1, random_bits(g, p, keys, bq, 1, 0.3));
      plan = Plan::columns(p, *tiles.branches[0].cover.list);
    }
  }
  if (pooled) plan.pooled(block);
  if (plan.branches[0].cover.kind != CoverKind::band && coin(g, 0.3))
    plan.window({pick(g, -1, 30), pick(g, -1, 5), pick(g, 0, 3)});
  if (coin(g, 0.3)) plan.mask(random_mask(g, p, keys));
  return plan.causal(coin(g, 0.6));
}

}  // namespace regard::test
