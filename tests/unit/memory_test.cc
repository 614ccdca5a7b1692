// KvCache: append, read, fork, drop against a plain vector of rows.
#include "regard/memory.h"

#include <gtest/gtest.h>

#include "random_plan.h"
#include "regard/status.h"

namespace regard {
namespace {

using Rows = std::vector<std::vector<float>>;  // one a token: k of head 0, k of head 1, ...

void append(KvCache* cache, Rows* rows, test::Rng& g, int64_t n) {
  const Tensor k = test::random_tensor(g, {1, 2, n, 3}), v = test::random_tensor(g, {1, 2, n, 5});
  cache->append(k.view, v.view);
  for (int64_t t = 0; t < n; ++t) {
    std::vector<float> row(16);
    for (int64_t h = 0; h < 2; ++h) {
      read_row(k.view, 0, h, t, &row[size_t(h * 8)]);
      read_row(v.view, 0, h, t, &row[size_t(h * 8 + 3)]);
    }
    rows->push_back(row);
  }
}

void expect_same(const KvCache& cache, const Rows& rows) {
  ASSERT_EQ(cache.tokens(), int64_t(rows.size()));
  for (size_t t = 0; t < rows.size(); ++t) {
    std::vector<float> row(16);
    for (int64_t h = 0; h < 2; ++h) {
      read_row(cache.k(), 0, h, int64_t(t), &row[size_t(h * 8)]);
      read_row(cache.v(), 0, h, int64_t(t), &row[size_t(h * 8 + 3)]);
    }
    ASSERT_EQ(row, rows[t]);
  }
}

TEST(KvCache, ForksNeverSeeEachOther) {
  test::Rng g(30);
  for (int round = 0; round < 50; ++round) {
    std::vector<KvCache> caches{KvCache(1, 2, 3, 5, DType::f32)};
    std::vector<Rows> rows(1);
    for (int step = 0; step < 30; ++step) {
      const size_t i = size_t(test::pick(g, 0, int64_t(caches.size()) - 1));
      switch (test::pick(g, 0, 3)) {
        case 0:
          if (caches.size() < 6) {
            caches.push_back(caches[i].fork());
            rows.push_back(Rows(rows[i]));
          }
          break;
        case 1: {
          const int64_t keep = test::pick(g, 0, caches[i].tokens());
          caches[i].drop(keep);
          rows[i].resize(size_t(keep));
          break;
        }
        default:
          append(&caches[i], &rows[i], g, test::pick(g, 0, 7));
      }
      for (size_t c = 0; c < caches.size(); ++c) expect_same(caches[c], rows[c]);
    }
  }
}

TEST(KvCache, RoundsToItsTypeAndRefusesOtherShapes) {
  KvCache cache(1, 1, 2, 2, DType::f16, 4);
  float row[2] = {1.0f / 3, 70000.0f};
  const View one = contiguous(row, DType::f32, {1, 1, 1, 2});
  cache.append(one, one);
  float back[2];
  read_row(cache.k(), 0, 0, 0, back);
  EXPECT_NEAR(back[0], 1.0f / 3, 2e-4);
  EXPECT_TRUE(std::isinf(back[1]));
  EXPECT_THROW(cache.append(contiguous(row, DType::f32, {1, 2, 1, 1}), one), Error);
  EXPECT_THROW(cache.drop(2), Error);
  EXPECT_THROW(KvCache(1, 1, 2, 2, DType::q8_0), Error);
  EXPECT_EQ(cache.tokens(), 1);
}

}  // namespace
}  // namespace regard
