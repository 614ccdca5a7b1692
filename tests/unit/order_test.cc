// Orders and groups against their definitions.
#include "stages/order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "random_plan.h"
#include "regard/run.h"
#include "stages/random.h"

namespace regard {
namespace {

using test::Rng;

struct Data {
  Tensor q, k, v;
  Inputs x;
  Data(int64_t batch, int64_t heads, int64_t kv, int64_t nq, int64_t nk, int64_t d, bool causal) {
    Rng g(5);
    q = test::random_tensor(g, {batch, heads, nq, d});
    k = test::random_tensor(g, {batch, kv, nk, d});
    v = test::random_tensor(g, {batch, kv, nk, d});
    x.q = q.view, x.k = k.view, x.v = v.view;
    x.problem = Problem::of_views(x.q, x.k, x.v);
    x.causal = causal;
  }
};

const float* at(const View& v, int64_t b, int64_t h, int64_t i) {
  return reinterpret_cast<const float*>(v.at(b, h, i));
}

double distance(const float* a, const float* b, int64_t d) {
  double sum = 0;
  for (int64_t t = 0; t < d; ++t) sum += (double(a[t]) - b[t]) * (double(a[t]) - b[t]);
  return sum;
}

// Sum of squared distances of tokens to their centroids.
double objective(const order::Clusters& c, const View& x, int64_t b, int64_t h) {
  double sum = 0;
  for (int64_t i = 0; i < x.size[2]; ++i)
    sum += distance(at(x, b, h, i), c.row(b, h) + c.labels.row(b, h)[i] * c.depth, c.depth);
  return sum;
}

TEST(Order, ByLabelIsASortedPermutation) {
  order::Labels labels{1, 2, 6, 3, {2, 0, 1, 0, 2, 1, 0, 0, 0, 1, 1, 1}};
  const auto o = order::by_label(labels);
  EXPECT_EQ(o->token, (std::vector<uint32_t>{1, 3, 2, 5, 0, 4, 0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(o->heads, 2);
}

TEST(Order, KmeansDescendsToMeansOfNearestTokens) {
  const Data d(2, 4, 2, 50, 301, 24, true);
  double last[2] = {1e300, 1e300};
  for (int64_t it : {1, 2, 3, 5, 9, 40}) {
    const order::Clusters c = order::kmeans({2, nullptr}, d.x.k, 17, it, 3);
    for (int64_t h = 0; h < 2; ++h) {
      const double now = objective(c, d.x.k, 1, h);
      EXPECT_LE(now, last[h] * (1 + 1e-6));
      last[h] = now;
      std::vector<double> mean(size_t(17 * 24), 0.0);
      std::vector<int> count(17, 0);
      for (int64_t i = 0; i < 301; ++i) {
        const int32_t label = c.labels.row(1, h)[i];
        ++count[size_t(label)];
        for (int64_t t = 0; t < 24; ++t) mean[size_t(label * 24 + t)] += at(d.x.k, 1, h, i)[t];
      }
      for (int n = 0; n < 17; ++n)
        for (int64_t t = 0; t < 24 && count[size_t(n)]; ++t)
          ASSERT_NEAR(c.row(1, h)[n * 24 + t], mean[size_t(n * 24 + t)] / count[size_t(n)], 1e-5);
    }
  }
  // Converged: every token is with its nearest centroid.
  const order::Clusters c = order::kmeans({2, nullptr}, d.x.k, 17, 1000, 3);
  for (int64_t i = 0; i < 301; ++i) {
    const double own = distance(at(d.x.k, 0, 0, i), c.row(0, 0) + c.labels.row(0, 0)[i] * 24, 24);
    for (int n = 0; n < 17; ++n)
      ASSERT_LE(own, distance(at(d.x.k, 0, 0, i), c.row(0, 0) + n * 24, 24) + 1e-3);
  }
}

TEST(Order, ClusterMassIsExactForClustersOfEqualKeys) {
  Data d(1, 2, 1, 40, 60, 8, false);
  for (int64_t j = 0; j < 60; ++j)  // five different keys
    write_row(d.k.view, 0, 0, j, at(d.x.k, 0, 0, j % 5));
  const order::Clusters q = order::kmeans({1, nullptr}, d.x.q, 40, 1, 0);
  order::Clusters k = order::kmeans({1, nullptr}, d.x.k, 60, 3, 0);
  const BlockScores mass = order::cluster_mass({2, nullptr}, d.x.problem, q, k);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t i = 0; i < 40; ++i) {
      std::vector<double> want(60, 0.0);
      double sum = 0;
      for (int64_t j = 0; j < 60; ++j) {
        double s = 0;
        for (int64_t t = 0; t < 8; ++t) s += double(at(d.x.q, 0, h, i)[t]) * at(d.x.k, 0, 0, j)[t];
        const double e = std::exp(s * d.x.problem.scale);
        want[size_t(k.labels.row(0, 0)[j])] += e;
        sum += e;
      }
      for (int64_t c = 0; c < 60; ++c)
        ASSERT_NEAR(mass.row(0, h, q.labels.row(0, h)[i])[c], want[size_t(c)] / sum, 1e-5);
    }
}

TEST(Order, LshIsArgmaxOfBothSigns) {
  const Data d(1, 2, 1, 30, 90, 12, true);
  for (int64_t buckets : {1, 2, 7, 70}) {
    const order::Labels got = order::lsh({2, nullptr}, d.x.k, buckets, 4, 9);
    const int64_t half = (buckets + 1) / 2;
    EXPECT_EQ(got.count, buckets == 1 ? 1 : 2 * half);
    for (int64_t j = 0; j < 90; ++j) {
      std::vector<double> dots;
      for (int64_t c = 0; c < half; ++c) {
        double sum = 0;
        for (int64_t t = 0; t < 12; ++t)
          sum += float(random_normal(9, 4, c, t)) * double(at(d.x.k, 0, 0, j)[t]);
        dots.push_back(sum);
      }
      for (int64_t c = 0; c < half; ++c) dots.push_back(-dots[size_t(c)]);
      const int64_t best = std::max_element(dots.begin(), dots.end()) - dots.begin();
      EXPECT_EQ(got.row(0, 0)[j], buckets == 1 ? 0 : best);
    }
  }
}

TEST(Order, NormalNumbersAreNormal) {
  double sum = 0, square = 0, fourth = 0;
  constexpr int kN = 200000;
  for (int n = 0; n < kN; ++n) {
    const double x = random_normal(1, 2, n % 100, n / 100);
    sum += x, square += x * x, fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kN, 0, 4 / std::sqrt(kN));
  EXPECT_NEAR(square / kN, 1, 4 * std::sqrt(2.0 / kN));
  EXPECT_NEAR(fourth / kN, 3, 4 * std::sqrt(96.0 / kN));
}

TEST(Order, AngularNeighboursDifferInOneBit) {
  const Data d(1, 1, 1, 4, 400, 16, true);
  const order::Labels place = order::angular({2, nullptr}, d.x.k, 5, false, 2);
  const order::Labels code = order::angular({2, nullptr}, d.x.k, 5, true, 2);
  std::vector<int> bits_at(32, -1);
  for (int64_t j = 0; j < 400; ++j) {
    uint32_t bits = 0;
    for (int64_t c = 0; c < 5; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < 16; ++t)
        sum += float(random_normal(2, 0, c, t)) * double(at(d.x.k, 0, 0, j)[t]);
      bits |= uint32_t(sum > 0) << c;
    }
    EXPECT_EQ(uint32_t(code.row(0, 0)[j]), bits ^ bits >> 1);
    int& known = bits_at[size_t(place.row(0, 0)[j])];
    EXPECT_TRUE(known == -1 || known == int(bits));
    known = int(bits);
  }
  int neighbours = 0;
  for (size_t n = 0; n + 1 < 32; ++n) {
    if (bits_at[n] < 0 || bits_at[n + 1] < 0) continue;
    EXPECT_EQ(__builtin_popcount(uint32_t(bits_at[n] ^ bits_at[n + 1])), 1);
    ++neighbours;
  }
  EXPECT_GT(neighbours, 20);
}

TEST(Order, HyperSamplesAreUnbiased) {
  const Data d(1, 1, 1, 64, 96, 8, false);
  const Problem& p = d.x.problem;
  const Tensor out = make_tensor(DType::f64, {1, 1, 64, 8});
  const Tensor lse = make_tensor(DType::f64, {1, 1, 64, 1});
  const auto sums = [&](const Plan& plan) {
    RunOptions o;
    o.impl = "ref";
    attend(plan, d.x.q, d.x.k, d.x.v, {out.view, lse.view, {}}, o);
    std::vector<double> s;
    for (int64_t i = 0; i < 64; ++i) {
      double x;
      read_row(lse.view, 0, 0, i, &x);
      s.push_back(std::exp(x));
    }
    return s;
  };
  const std::vector<double> exact = sums(Plan::all(p));
  constexpr int kSeeds = 600;
  double worst = 0;
  std::vector<double> mean(64, 0.0), square(64, 0.0);
  for (int seed = 0; seed < kSeeds; ++seed) {
    // One hash for all seeds would do; every seed's blocks are exact, so only samples vary much.
    const std::vector<double> s = sums(order::hyper(
        {1, nullptr}, d.x,
        {.block = 16, .samples = 24, .projections = 3, .min_tokens = 1, .seed = seed}));
    for (size_t i = 0; i < 64; ++i) mean[i] += s[i] / kSeeds, square[i] += s[i] * s[i] / kSeeds;
  }
  for (size_t i = 0; i < 64; ++i) {
    const double deviation = std::sqrt((square[i] - mean[i] * mean[i]) / kSeeds);
    worst = std::max(worst, std::abs(mean[i] - exact[i]) / deviation);
  }
  EXPECT_LT(worst, 4.5);  // standard errors; 64 rows
}

TEST(Order, HyperHalvesCoverEveryPairOnceWhereBlocksAreWhole) {
  for (int64_t nk : {5, 64, 97, 130}) {
    for (int64_t nq : {nk, nk / 2 + 1, int64_t(1)}) {
      const Data d(1, 2, 1, nq, nk, 8, true);
      // Blocks as large as the sequence: every quadrant is read exactly.
      Plan plan = order::hyper({2, nullptr}, d.x,
                               {.block = 1000, .samples = 3, .projections = 2, .min_tokens = 7});
      plan.causal();
      EXPECT_NO_THROW(plan.validate());
      std::vector<uint64_t> all(expand(Plan::all(d.x.problem), 0).words.size(), 0);
      for (size_t n = 0; n < plan.branches.size(); ++n) {
        const auto words = expand(plan, int(n)).words;
        for (size_t w = 0; w < words.size(); ++w) all[w] |= words[w];
      }
      EXPECT_EQ(all, expand(Plan::all(d.x.problem).causal(), 0).words) << nq << " of " << nk;
    }
  }
}

TEST(Order, SinkhornApproachesADoublyStochasticMatrix) {
  Rng g(4);
  BlockScores s;
  s.batch = 1, s.heads = 2, s.rows = s.cols = 9;
  for (int n = 0; n < 162; ++n) s.s.push_back(float(test::pick(g, -3, 9)));
  const BlockScores r = order::sinkhorn(s, 300, 2);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t n = 0; n < 9; ++n) {
      double row = 0, col = 0;
      for (int64_t m = 0; m < 9; ++m) {
        row += std::exp(r.row(0, h, n)[m]);
        col += std::exp(r.row(0, h, m)[n]);
      }
      EXPECT_NEAR(row, 1, 1e-3);
      EXPECT_NEAR(col, 1, 1e-5);
    }
  const BlockScores once = order::sinkhorn(s, 0, 2);
  EXPECT_FLOAT_EQ(once.row(0, 0, 0)[1],
                  float(std::log(std::max(double(s.row(0, 0, 0)[1]), 0.0) + 1e-6) / 2));
}

TEST(Order, ImportanceSortsInsideWholeSegments) {
  const Data d(1, 2, 1, 40, 150, 8, true);
  const auto o = order::by_importance({2, nullptr}, d.x, 32, 16);
  for (int64_t h = 0; h < 2; ++h) {
    const uint32_t* token = o->row(0, h, 2);
    std::vector<double> mass(150, 0.0);
    for (int64_t i = 24; i < 40; ++i) {
      std::vector<double> e(128);
      double sum = 0;
      for (int64_t j = 0; j < 128; ++j) {
        double s = 0;
        for (int64_t t = 0; t < 8; ++t) s += double(at(d.x.q, 0, h, i)[t]) * at(d.x.k, 0, 0, j)[t];
        sum += e[size_t(j)] = std::exp(s * d.x.problem.scale);
      }
      for (int64_t j = 0; j < 128; ++j) mass[size_t(j)] += e[size_t(j)] / sum;
    }
    std::set<uint32_t> seen(token, token + 150);
    EXPECT_EQ(seen.size(), 150u);
    for (int64_t n = 0; n < 150; ++n) {
      if (n >= 128) {
        EXPECT_EQ(token[n], uint32_t(n));
        continue;
      }
      EXPECT_EQ(int64_t(token[n]) / 32, n / 32);
      if (n % 32) {
        EXPECT_GE(mass[token[n - 1]], mass[token[n]] - 1e-5);
      }
    }
  }
}

TEST(Order, ThreadsChangeNothing) {
  const Data d(2, 4, 2, 150, 333, 24, true);
  const Ctx one{1, nullptr};
  for (int threads : {2, 3}) {
    const Ctx many{threads, nullptr};
    EXPECT_EQ(order::kmeans(one, d.x.k, 20, 5, 1).centroids,
              order::kmeans(many, d.x.k, 20, 5, 1).centroids);
    EXPECT_EQ(order::by_importance(one, d.x, 64, 16)->token,
              order::by_importance(many, d.x, 64, 16)->token);
    const auto same = [](const Plan& a, const Plan& b) { EXPECT_EQ(to_json(a), to_json(b)); };
    same(order::lsh_attention(one, d.x, {}), order::lsh_attention(many, d.x, {}));
    same(order::routing(one, d.x, {}), order::routing(many, d.x, {}));
    const order::Hyper how{.block = 16, .samples = 8, .min_tokens = 50};
    same(order::hyper(one, d.x, how), order::hyper(many, d.x, how));
  }
}

}  // namespace
}  // namespace regard
