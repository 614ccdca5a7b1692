// A random problem with its tensors, and attention over the pairs of a plan in three loops.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "random_plan.h"
#include "regard/run.h"

namespace regard::test {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Case {
  Problem p;
  Tensor q, k, v, out, lse;
  Case(Rng& g, Problem problem) : p(problem) {
    q = test::random_tensor(g, {p.batch, p.heads, p.nq, p.dk});
    k = test::random_tensor(g, {p.batch, p.kv_heads, p.nk, p.dk});
    v = test::random_tensor(g, {p.batch, p.kv_heads, p.nk, p.dv});
    out = make_tensor(DType::f64, {p.batch, p.heads, p.nq, p.dv});
    lse = make_tensor(DType::f64, {p.batch, p.heads, p.nq, 1});
  }
  void run(const Plan& plan, const char* impl, int threads = 2) {
    RunOptions o;
    o.impl = impl;
    o.threads = threads;
    attend(plan, q.view, k.view, v.view, {out.view, lse.view, {}}, o);
  }
};

inline std::vector<double> values(const Tensor& t) {
  const double* d = static_cast<const double*>(t.view.data);
  return {d, d + t.view.numel()};
}

inline std::vector<double> row(const Tensor& t, int64_t b, int64_t h, int64_t n) {
  std::vector<double> x(size_t(t.view.size[3]));
  read_row(t.view, b, h, n, x.data());
  return x;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t c = 0; c < a.size(); ++c) sum += a[c] * b[c];
  return sum;
}

// Attention with weight(i, j) over expand()'s pairs; the sum has them all, the output those of
// value(i, j).
template <class W, class V>
void check(const Plan& plan, const Case& x, double tolerance, const W& weight, const V& value) {
  const Problem& p = x.p;
  const BitMask bits = expand(plan, 0);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i) {
        double sum = 0;
        std::vector<double> acc(size_t(p.dv), 0);
        for (int64_t j = 0; j < p.nk; ++j) {
          if (!bits.get(b, h, i, j)) continue;
          const double w = weight(b, h, i, j);
          sum += w;
          if (!value(b, h, i, j)) continue;
          const std::vector<double> v = row(x.v, b, h / p.group(), j);
          for (int64_t c = 0; c < p.dv; ++c) acc[size_t(c)] += w * v[size_t(c)];
        }
        const std::vector<double> out = row(x.out, b, h, i);
        const double lse = row(x.lse, b, h, i)[0];
        if (sum == 0) {
          EXPECT_EQ(lse, -kInf);
          for (const double o : out) EXPECT_EQ(o, 0);
          continue;
        }
        ASSERT_NEAR(lse, std::log(sum), tolerance) << describe(plan);
        for (int64_t c = 0; c < p.dv; ++c)
          ASSERT_NEAR(out[size_t(c)], acc[size_t(c)] / sum, tolerance) << describe(plan);
      }
}

}  // namespace regard::test
