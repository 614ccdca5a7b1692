// Stages that several rows of the catalogue share, against plain loops over their definitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "stages/estimate.h"
#include "stages/lists.h"
#include "stages/random.h"
#include "stages/select.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Data {
  Tensor q, k, v;
  Inputs x;
  Data(int64_t batch, int64_t heads, int64_t kv, int64_t nq, int64_t nk, int64_t d, bool causal) {
    q = make_tensor(DType::f32, {batch, heads, nq, d});
    k = make_tensor(DType::f32, {batch, kv, nk, d});
    v = make_tensor(DType::f32, {batch, kv, nk, d});
    std::mt19937 g(11);
    std::normal_distribution<float> normal(0, 1.5f);
    for (const Tensor* t : {&q, &k, &v})
      for (int64_t i = 0; i < t->view.numel(); ++i)
        static_cast<float*>(t->view.data)[i] = normal(g);
    x.q = q.view, x.k = k.view, x.v = v.view;
    x.problem = Problem::of_views(x.q, x.k, x.v);
    x.causal = causal;
  }
  bool sees(int64_t i, int64_t j) const { return !x.causal || j <= i + x.problem.offset; }
  double logit(int64_t b, int64_t h, int64_t i, int64_t j) const {
    std::vector<double> a(size_t(x.problem.dk)), c(a);
    read_row(x.q, b, h, i, a.data());
    read_row(x.k, b, h / x.problem.group(), j, c.data());
    double sum = 0;
    for (size_t t = 0; t < a.size(); ++t) sum += a[t] * c[t];
    return sum * x.problem.scale;
  }
  std::vector<double> probabilities(int64_t b, int64_t h, int64_t i) const {
    std::vector<double> p(size_t(x.problem.nk), 0.0);
    double top = -kInf, sum = 0;
    for (int64_t j = 0; j < x.problem.nk; ++j)
      if (sees(i, j)) top = std::max(top, logit(b, h, i, j));
    for (int64_t j = 0; j < x.problem.nk; ++j)
      if (sees(i, j)) sum += p[j] = std::exp(logit(b, h, i, j) - top);
    for (double& y : p) y /= sum > 0 ? sum : 1;
    return p;
  }
};

std::vector<Data> problems() {
  std::vector<Data> out;
  out.emplace_back(1, 2, 1, 130, 144, 16, true);
  out.emplace_back(2, 4, 2, 70, 201, 24, true);
  out.emplace_back(1, 1, 1, 96, 96, 8, false);
  out.emplace_back(1, 3, 3, 1, 65, 32, true);
  return out;
}

// Pairs that a plan of disjoint branches reads.
BitMask pairs_of(Plan plan, bool causal) {
  plan.causal(causal).lower();
  plan.validate();
  BitMask out = expand(plan, 0);
  for (size_t n = 1; n < plan.branches.size(); ++n) {
    const BitMask more = expand(plan, int(n));
    for (size_t w = 0; w < out.words.size(); ++w) out.words[w] |= more.words[w];
  }
  return out;
}

TEST(Random, IsTheReferenceGeneratorAndAFunctionOfItsPlace) {
  EXPECT_EQ(split_mix(0), 0xE220A8397B1DCDAFull);  // first output of SplitMix64 seeded with 0
  EXPECT_EQ(random_bits(1, 2, 3, 4), random_bits(1, 2, 3, 4));
  EXPECT_NE(random_bits(1, 2, 3, 4), random_bits(1, 3, 2, 4));
  double sum = 0;
  for (int64_t n = 0; n < 4000; ++n) sum += random_uniform(7, 0, -n, n);
  EXPECT_NEAR(sum / 4000, 0.5, 0.02);
}

TEST(Keep, WhereAsksTheRuleForEveryOwnTile) {
  Problem p = Data(1, 2, 1, 50, 133, 8, true).x.problem;  // rows begin inside key tiles
  const auto rule = [](int64_t h, int64_t own, int64_t c) {
    return (own * 7 + c * 3 + h) % 5 == 0;
  };
  const TileBits bits = keep::where(p, 16, 10, 2, rule);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t r = 0; r < bits.rows; ++r)
      for (int64_t c = 0; c < bits.cols; ++c) {
        bool want = false;
        for (int64_t i = r * 16; i < std::min<int64_t>((r + 1) * 16, p.nq); ++i)
          want |= rule(h, (i + p.offset) / 10, c);
        EXPECT_EQ(bits.get(0, h, r, c), want);
      }
}

TEST(Lists, ByRowIsItsRule) {
  for (const Data& d : problems())
    for (int threads : {1, 3}) {
      const Problem& p = d.x.problem;
      const auto reads = [](int64_t h, int64_t i, int64_t j) {
        return j < 70 || i - j < 20 + 60 * h || (i + j) % 11 == 0;
      };
      const Plan plan = lists::by_position({threads, nullptr}, d.x, p.heads,
                                           [&](int64_t h, int64_t i, lists::Ranges* out) {
                                             out->push_back({i - 19 - 60 * h, p.nk + 5});
                                             lists::every(((11 - i % 11) % 11), 1, 11, p.nk, out);
                                             out->push_back({-3, 70});
                                           });
      const BitMask got = pairs_of(plan, d.x.causal);
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t i = 0; i < p.nq; ++i)
          for (int64_t j = 0; j < p.nk; ++j)
            ASSERT_EQ(got.get(0, h, i, j), d.sees(i, j) && reads(h, i + p.offset, j));
    }
}

TEST(Lists, ByChunkReadsTheKeptChunks) {
  std::mt19937 g(3);
  for (const Data& d : problems())
    for (const int64_t size : {64, 48}) {  // whole tiles, and not
      const Problem& p = d.x.problem;
      const lists::Chunks chunks = lists::grid_chunks(p, {0, 1, 1}, {size, 1, 1});
      TileBits kept(p.batch, p.heads, p.nq, int64_t(chunks.keys.size()));
      // Runs of queries that agree, so that some tiles are whole.
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t c = 0; c < kept.cols; ++c)
          for (int64_t i = 0, on = g() % 2; i < p.nq; ++i, on ^= g() % 40 == 0)
            kept.set(0, h, i, c, on);
      const Plan plan = lists::by_chunk({2, nullptr}, d.x, chunks, kept);
      const BitMask got = pairs_of(plan, d.x.causal);
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t i = 0; i < p.nq; ++i)
          for (int64_t j = 0; j < p.nk; ++j)
            ASSERT_EQ(got.get(0, h, i, j), d.sees(i, j) && kept.get(0, h, i, chunks.of[size_t(j)]));
    }
}

TEST(Lists, PiecesCoverTheSequence) {
  const std::vector<int64_t> starts = lists::cuts(5, 10, 32);
  EXPECT_EQ(starts, (std::vector<int64_t>{5, 15, 25, 32}));
  for (int64_t i = 0; i < 40; ++i) {
    const lists::Range r = lists::piece(starts, 40, i);
    EXPECT_TRUE(r.begin <= i && i < r.end);
  }
  EXPECT_EQ(lists::piece(starts, 40, 3).end, 5);
  EXPECT_EQ(lists::piece(starts, 40, 39).begin, 32);
}

TEST(Lists, TopKeysAreTheGreatestProducts) {
  for (const Data& d : problems()) {
    const Problem& p = d.x.problem;
    const BitMask got = pairs_of(lists::top_keys({2, nullptr}, d.x, {4, 9})[1], d.x.causal);
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t i = 0; i < p.nq; i += 7) {
          std::vector<std::pair<double, int64_t>> order;
          for (int64_t j = 0; j < p.nk; ++j)
            if (d.sees(i, j)) order.emplace_back(-d.logit(b, h, i, j), j);
          std::sort(order.begin(), order.end());
          for (size_t n = 0; n < order.size(); ++n)
            EXPECT_EQ(got.get(b, h, i, order[n].second), n < 9);
        }
  }
}

TEST(Lists, TopScoredKeepsTheBestOfWhatARowSees) {
  for (const Data& d : problems()) {
    const Problem& p = d.x.problem;
    Tensor scores = make_tensor(DType::f32, {p.batch, p.kv_heads, 1, p.nk});
    for (int64_t n = 0; n < scores.view.numel(); ++n)
      static_cast<float*>(scores.view.data)[n] = float(n * 37 % 10);  // many ties
    const BitMask got = pairs_of(lists::top_scored({2, nullptr}, d.x, scores, {12}), d.x.causal);
    std::vector<float> s(size_t(p.nk));
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i) {
        read_row(scores.view, 0, h / p.group(), 0, s.data());
        std::vector<std::pair<float, int64_t>> order;
        for (int64_t j = 0; j < p.nk; ++j)
          if (d.sees(i, j)) order.emplace_back(-s[j], j);
        std::sort(order.begin(), order.end());
        for (size_t n = 0; n < order.size(); ++n)
          ASSERT_EQ(got.get(0, h, i, order[n].second), n < 12) << i << " " << order[n].second;
      }
  }
}

TEST(Lists, TreeSearchFindsASinglePeak) {
  Data d(1, 1, 1, 32, 1024, 4, true);
  float* q = static_cast<float*>(d.x.q.data);
  float* k = static_cast<float*>(d.x.k.data);
  std::fill_n(q, 32 * 4, 1.0f);
  for (int64_t j = 0; j < 1024; ++j)
    for (int64_t t = 0; t < 4; ++t) k[j * 4 + t] = -std::abs(float(j - 333)) / 100;
  const lists::TreeSearch how{.mask_k = 64, .block_q = 32, .block_k = 2, .window = 16};
  const BitMask got = pairs_of(lists::tree_search({1, nullptr}, d.x, how), true);
  int64_t count = 0;
  for (int64_t j = 0; j < 1024; ++j) count += got.get(0, 0, 31, j);
  EXPECT_EQ(count, 64 + 16);
  for (int64_t j = 304; j < 363; ++j) EXPECT_TRUE(got.get(0, 0, 31, j)) << j;
}

TEST(Estimate, SelfSimilarityIsTheMeanCosine) {
  const Data d(1, 1, 1, 50, 50, 12, true);
  for (const bool minus_mean : {false, true}) {
    const BlockScores got = estimate::self_similarity({1, nullptr}, d.x.k, 16, minus_mean, false);
    std::vector<std::vector<double>> x(50, std::vector<double>(12));
    std::vector<double> mean(12, 0.0);
    for (int64_t j = 0; j < 50; ++j) {
      read_row(d.x.k, 0, 0, j, x[j].data());
      for (int t = 0; t < 12; ++t) mean[t] += x[j][t] / 50;
    }
    for (int64_t c = 0; c < 4; ++c) {
      const int64_t begin = c * 16, end = std::min<int64_t>(begin + 16, 50);
      double sum = 0;
      for (int64_t a = begin; a < end; ++a)
        for (int64_t b = begin; b < end; ++b) {
          double ab = 0, aa = 0, bb = 0;
          for (int t = 0; t < 12; ++t) {
            const double u = x[a][t] - mean[t] * minus_mean, w = x[b][t] - mean[t] * minus_mean;
            ab += u * w, aa += u * u, bb += w * w;
          }
          sum += ab / std::sqrt(aa * bb);
        }
      EXPECT_NEAR(got.row(0, 0, 0)[c], sum / double((end - begin) * (end - begin)), 1e-5);
    }
  }
  EXPECT_TRUE(std::isnan(estimate::self_similarity({1, nullptr}, d.x.k, 16, false, true).s[3]));
}

// With every token sampled, or every token a proxy of its own head, scores are exact maxima.
TEST(Estimate, FullSamplesAreExact) {
  for (const Data& d : problems()) {
    const Problem& p = d.x.problem;
    const auto sampled =
        estimate::sampled({2, nullptr}, d.x, 16, 16, {.queries = 16, .keys = 16, .seed = 1});
    const auto proxy = estimate::proxy_heads({2, nullptr}, d.x, 16, 1, p.heads);
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t r = 0; r < proxy.rows; ++r) {
          std::vector<double> want(size_t(proxy.cols), 0.0);
          for (int64_t i = r * 16; i < std::min<int64_t>((r + 1) * 16, p.nq); ++i) {
            const auto row = d.probabilities(b, h, i);
            for (int64_t j = 0; j < p.nk; ++j) want[j / 16] = std::max(want[j / 16], row[j]);
          }
          for (int64_t c = 0; c < proxy.cols; ++c) {
            const bool seen = d.sees(std::min<int64_t>((r + 1) * 16, p.nq) - 1, c * 16);
            if (!seen) {
              EXPECT_EQ(proxy.row(b, h, r)[c], -kInf);
              EXPECT_EQ(sampled.row(b, h, r)[c], -kInf);
              continue;
            }
            EXPECT_NEAR(proxy.row(b, h, r)[c], want[c], 1e-5);
            // A ragged tail repeats its last key in the sample, so compare whole tiles only.
            if (p.nk % 16 == 0) {
              EXPECT_NEAR(sampled.row(b, h, r)[c], want[c], 1e-5);
            }
          }
        }
  }
}

TEST(Estimate, BestOfCompressedKeysIsTheSelectorsChoice) {
  for (const Data& d : problems())
    for (const int64_t coarse : {0, 3}) {
      const estimate::Compression how{8, 4, 16, coarse == 3, {}, coarse};
      const TileBits forced = keep::sink(d.x.problem, 1, 16, 1);
      const Selector best{.cut = Selector::Cut::top_k, .amount = 3, .forced = &forced};
      EXPECT_EQ(estimate::best_compressed({2, nullptr}, d.x, how, best),
                select({2, nullptr}, estimate::compressed({2, nullptr}, d.x, how), best));
    }
}

TEST(Estimate, CompressionByOneIsAttention) {
  for (const Data& d : problems()) {
    const Problem& p = d.x.problem;
    const auto got = estimate::compressed({2, nullptr}, d.x, {.width = 1, .stride = 1, .block = 1});
    for (int64_t kv = 0; kv < p.kv_heads; ++kv)
      for (int64_t i = 0; i < p.nq; i += 5) {
        std::vector<double> want(size_t(p.nk), 0.0);
        for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
          const auto row = d.probabilities(0, h, i);
          for (int64_t j = 0; j < p.nk; ++j) want[j] += row[j];
        }
        for (int64_t j = 0; j < p.nk; ++j)
          if (d.sees(i, j)) {
            EXPECT_NEAR(got.row(0, kv, i)[j], want[j], 1e-5);
          } else {
            EXPECT_EQ(got.row(0, kv, i)[j], -kInf);
          }
      }
  }
}

TEST(Select, AmountsAreOneACompetition) {
  BlockScores s{1, 1, 3, 4, {4, 3, 2, 1, 1, 2, 3, 4, 0, 0, 0, 0}};
  const std::vector<double> amounts = {1, 2, 3};
  const TileBits got = select({1, nullptr}, s, {.cut = Selector::Cut::top_k, .amounts = &amounts});
  const bool want[3][4] = {{true}, {false, false, true, true}, {true, true, true}};
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 4; ++c) EXPECT_EQ(got.get(0, 0, r, c), want[r][c]);
}

TEST(Select, AdaptiveBudgetsKeepTheMean) {
  BlockScores mass{1, 4, 1, 10, Scores(40, 0.1f)};
  for (int c = 0; c < 10; ++c) mass.s[c] = c < 2 ? 1.0f : 0.0f;  // head 0: all mass in two tiles
  const TileBits kept = select({1, nullptr}, mass, {.cut = Selector::Cut::top_k, .amount = 2});
  const std::vector<double> got = adaptive_budgets(mass, kept, 0.8);
  EXPECT_NEAR(got[0], 1, 1e-9);  // lends half of its budget
  EXPECT_NEAR(got[0] + got[1] + got[2] + got[3], 8, 1e-9);
  EXPECT_NEAR(*std::max_element(got.begin(), got.end()), 3, 1e-9);
}

TEST(Select, CoveringBudgetsCountTilesThatCover) {
  const Data d(1, 1, 1, 64, 64, 8, true);
  estimate::VerticalSlash probe;
  probe.batch = probe.heads = 1, probe.nk = 64;
  probe.vertical.assign(64, 0.0f);
  probe.vertical[3] = 0.6f, probe.vertical[40] = 0.3f, probe.vertical[60] = 0.1f;
  EXPECT_EQ(covering_budgets(d.x, probe, 16, 16, 0.5), (std::vector<double>{1, 1, 1, 1}));
  EXPECT_EQ(covering_budgets(d.x, probe, 16, 16, 0.85), (std::vector<double>{1, 1, 2, 2}));
  EXPECT_EQ(covering_budgets(d.x, probe, 16, 16, 2), (std::vector<double>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace regard
