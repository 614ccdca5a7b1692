// Laws of branches that weigh by features, map their values, or skip some of them.
#include <gtest/gtest.h>

#include <cmath>

#include "case.h"

namespace regard {
namespace {

using test::Case;
using test::check;
using test::dot;
using test::kInf;
using test::Rng;
using test::row;
using test::values;
constexpr WeightKind kKinds[] = {WeightKind::softmax, WeightKind::elu, WeightKind::relu,
                                 WeightKind::random};

std::vector<double> phi(const Problem& p, const Weight& w, const std::vector<double>& x) {
  std::vector<double> out;
  double sum = 0;
  for (const double e : x) sum += std::exp(e);
  if (w.kind == WeightKind::softmax)
    for (const double e : x) out.push_back(std::exp(e) / sum);
  if (w.kind == WeightKind::elu)
    for (const double e : x) out.push_back(e > 0 ? e + 1 : std::exp(e));
  if (w.kind == WeightKind::relu)
    for (const double e : x) out.push_back(std::max(e, 0.0));
  if (w.kind != WeightKind::random) return out;
  const int64_t m = w.directions.view.size[2];
  for (int64_t r = 0; r < m; ++r)
    out.push_back(std::exp(std::sqrt(double(p.scale)) * dot(row(w.directions, 0, 0, r), x) -
                           double(p.scale) * dot(x, x) / 2) /
                  std::sqrt(double(m)));
  return out;
}

Weight random_weight(Rng& g, const Problem& p, WeightKind kind) {
  Weight w{kind, {}};
  if (kind == WeightKind::random)
    w.directions = test::random_tensor(g, {1, 1, test::pick(g, 1, 20), p.dk});
  return w;
}

// f32: sums of at most 700 products of numbers of order 3 by weights that add up to 1.
struct Impl {
  const char* name;
  double tolerance;
};
constexpr Impl kImpls[] = {{"ref", 1e-11}, {"cpu", 1e-5}};

class Weights : public testing::TestWithParam<Impl> {};
INSTANTIATE_TEST_SUITE_P(Each, Weights, testing::ValuesIn(kImpls),
                         [](const auto& i) { return std::string(i.param.name); });

void check_features(const Plan& plan, Case& x, const Impl& impl) {
  const Problem& p = x.p;
  x.run(plan, impl.name);
  check(
      plan, x, impl.tolerance,
      [&](int64_t b, int64_t h, int64_t i, int64_t j) {
        return dot(phi(p, plan.branches[0].weight, row(x.q, b, h, i)),
                   phi(p, plan.branches[0].weight, row(x.k, b, h / p.group(), j)));
      },
      [](int64_t, int64_t, int64_t, int64_t) { return true; });
}

TEST_P(Weights, OfFeaturesAreTheirProducts) {
  Rng g(40);
  for (int n = 0; n < 80; ++n) {
    Case x(g, test::random_problem(g));
    Plan plan = test::random_plan(g, x.p);
    if (plan.branches[0].source.kind != SourceKind::raw) continue;
    plan.weight(random_weight(g, x.p, kKinds[n % 4]));
    check_features(plan, x, GetParam());
  }
}

// Sums of 8 and of 64 blocks, and what is left beside them.
TEST_P(Weights, OfLongRunsOfBlocksAreSummedOnce) {
  Rng g(41);
  for (const WeightKind kind : kKinds) {
    Problem p;
    p.nq = 70, p.nk = 700, p.dk = 5, p.dv = 3;
    p.scale = 0.4f, p.offset = 630;
    Case x(g, p);
    const Weight w = random_weight(g, p, kind);
    check_features(Plan::all(p).weight(w).causal(), x, GetParam());
    TileBits bits(1, 1, 5, 88);
    bits.fill(true);
    for (const int c : {3, 20, 86}) bits.set(0, 0, c % 5, c, false);
    check_features(Plan::tiles(p, 16, 8, bits).weight(w), x, GetParam());
  }
}

TEST_P(Weights, ThreadsChangeNothing) {
  Rng g(42);
  Case x(g, test::random_problem(g));
  const Plan plan = Plan::all(x.p).weight(random_weight(g, x.p, WeightKind::random)).causal();
  x.run(plan, GetParam().name, 1);
  const auto one = values(x.out);
  x.run(plan, GetParam().name, 3);
  EXPECT_EQ(one, values(x.out));
}

TEST_P(Weights, AValueMapIsAMapOfTheOutput) {
  Rng g(43);
  for (int n = 0; n < 20; ++n) {
    Case x(g, test::random_problem(g));
    const Problem& p = x.p;
    Plan plan = test::random_plan(g, p);
    x.run(plan, GetParam().name);
    const auto lse = values(x.lse), out = values(x.out);
    const Tensor map = test::random_tensor(g, {1, p.kv_heads, p.dv + 1, p.dv});
    x.run(plan.value_map(map), GetParam().name);
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t i = 0; i < p.nq; ++i) {
          const int64_t at = (b * p.heads + h) * p.nq + i;
          if (lse[size_t(at)] == -kInf) continue;
          std::vector<double> want = row(map, 0, h / p.group(), p.dv);
          for (int64_t r = 0; r < p.dv; ++r)
            for (int64_t c = 0; c < p.dv; ++c)
              want[size_t(c)] +=
                  out[size_t(at * p.dv + r)] * row(map, 0, h / p.group(), r)[size_t(c)];
          for (int64_t c = 0; c < p.dv; ++c)
            ASSERT_NEAR(row(x.out, b, h, i)[size_t(c)], want[size_t(c)],
                        9 * GetParam().tolerance);  // a sum of dv <= 9 outputs
        }
  }
}

TEST_P(Weights, ValuesFarBelowTheRunningMaximumAreSkipped) {
  Rng g(44);
  int64_t left_out = 0;
  for (int n = 0; n < 12; ++n) {
    Problem p = test::random_problem(g);
    p.nk = test::pick(g, 130, 300);
    p.offset = p.nk - p.nq;
    Case x(g, p);
    TileBits bits = test::random_bits(g, p, p.nk, 20, 64, 0.7);
    Plan plan = n % 2 ? Plan::tiles(p, 20, 64, bits) : Plan::all(p);
    plan.causal(n % 3 > 0).value_skip(0.5f);
    const BitMask pairs = expand(plan, 0);
    const auto logit = [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      return pairs.get(b, h, i, j) ? p.scale * dot(row(x.q, b, h, i), row(x.k, b, h / p.group(), j))
                                   : -kInf;
    };
    x.run(plan, GetParam().name);
    check(
        plan, x, GetParam().tolerance,
        [&](int64_t b, int64_t h, int64_t i, int64_t j) { return std::exp(logit(b, h, i, j)); },
        [&](int64_t b, int64_t h, int64_t i, int64_t j) {
          double own = -kInf, so_far = -kInf;
          for (int64_t t = 0; t < std::min(j / 64 * 64 + 64, p.nk); ++t) {
            if (t / 64 == j / 64) own = std::max(own, logit(b, h, i, t));
            so_far = std::max(so_far, logit(b, h, i, t));
          }
          left_out += own < so_far - 0.5;
          return own >= so_far - 0.5;
        });
  }
  EXPECT_GT(left_out, 1000);
}

TEST(Weights, AreRefusedWhereTheyMeanNothing) {
  Rng g(45);
  Case x(g, test::random_problem(g));
  const auto refused = [&](Plan plan) { EXPECT_THROW(x.run(plan, ""), std::exception); };
  const Weight elu{WeightKind::elu, {}};
  refused(Plan::all(x.p).weight(elu).score({.softcap = 5}));
  refused(Plan::all(x.p).weight(elu).pooled(4));
  refused(Plan::all(x.p).weight({WeightKind::random, {}}));
  refused(Plan::all(x.p).weight({WeightKind::elu, test::random_tensor(g, {1, 1, 2, x.p.dk})}));
  refused(Plan::all(x.p).value_map(test::random_tensor(g, {1, 1, x.p.dv, x.p.dv})));
  refused(Plan::all(x.p).value_skip(-1));
  refused(Plan::all(x.p).value_skip(1).pooled(4));
}

}  // namespace
}  // namespace regard
