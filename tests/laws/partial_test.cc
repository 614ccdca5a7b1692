// Partial's merge is a commutative monoid, and splitting keys changes nothing.
#include "regard/partial.h"

#include <gtest/gtest.h>

#include <vector>

#include "random_plan.h"

namespace regard {
namespace {

constexpr int kDv = 3;
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Row {
  PartialHead<double> head;
  double acc[kDv] = {0, 0, 0};
};

Row of_keys(const std::vector<double>& s, const std::vector<double>& v, size_t first, size_t last) {
  Row r;
  for (size_t j = first; j < last; ++j) r.head.max = std::max(r.head.max, s[j]);
  for (size_t j = first; j < last; ++j) {
    if (s[j] == -kInf) continue;
    const double w = std::exp(s[j] - r.head.max);
    r.head.sum += w;
    for (int c = 0; c < kDv; ++c) r.acc[c] += w * v[j * kDv + size_t(c)];
  }
  return r;
}

Row join(Row a, const Row& b) {
  merge(a.head, a.acc, b.head, b.acc, kDv);
  return a;
}

void expect_near(const Row& a, const Row& b) {
  EXPECT_EQ(a.head.max, b.head.max);
  EXPECT_NEAR(a.head.sum, b.head.sum, 1e-12 * (1 + b.head.sum));
  for (int c = 0; c < kDv; ++c) EXPECT_NEAR(a.acc[c], b.acc[c], 1e-12 * (1 + std::abs(b.acc[c])));
}

Row random_row(test::Rng& g, std::vector<double>* s, std::vector<double>* v) {
  const size_t n = size_t(test::pick(g, 0, 12));
  std::normal_distribution<double> normal(0, test::coin(g) ? 1 : 500);
  s->clear(), v->clear();
  for (size_t j = 0; j < n; ++j) {
    s->push_back(test::coin(g, 0.2) ? -kInf : normal(g));
    for (int c = 0; c < kDv; ++c) v->push_back(normal(g));
  }
  return of_keys(*s, *v, 0, n);
}

TEST(Partial, EmptyIsTheIdentity) {
  test::Rng g(1);
  std::vector<double> s, v;
  for (int n = 0; n < 200; ++n) {
    const Row r = random_row(g, &s, &v);
    expect_near(join(r, Row{}), r);
    expect_near(join(Row{}, r), r);
  }
  EXPECT_EQ(lse(Row{}.head), -kInf);
}

TEST(Partial, MergeIsAssociativeAndCommutative) {
  test::Rng g(2);
  std::vector<double> s, v;
  for (int n = 0; n < 500; ++n) {
    const Row a = random_row(g, &s, &v), b = random_row(g, &s, &v), c = random_row(g, &s, &v);
    expect_near(join(a, b), join(b, a));
    expect_near(join(join(a, b), c), join(a, join(b, c)));
  }
}

TEST(Partial, AnySplitOfTheKeysGivesTheWhole) {
  test::Rng g(3);
  std::vector<double> s, v;
  for (int n = 0; n < 500; ++n) {
    const Row whole = random_row(g, &s, &v);
    const size_t cut = size_t(test::pick(g, 0, int64_t(s.size())));
    expect_near(join(of_keys(s, v, 0, cut), of_keys(s, v, cut, s.size())), whole);
  }
}

TEST(Partial, InfiniteMaximaStayDefined) {
  const MergeScales<double> both = merge_scales(kInf, kInf);
  EXPECT_EQ(both.a, 1);
  EXPECT_EQ(both.b, 1);
  const MergeScales<double> one = merge_scales(kInf, 3.0);
  EXPECT_EQ(one.a, 1);
  EXPECT_EQ(one.b, 0);
}

}  // namespace
}  // namespace regard
