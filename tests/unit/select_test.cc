// The selector against one written as slowly and plainly as can be, over inputs full of ties.
#include "stages/select.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Item {
  int64_t index;
  double score;  // NaN already counted as -inf
  bool forced;
};

// One competition, by its words: sort everything, walk, stop at the first item that fails.
std::vector<int64_t> naive(std::vector<Item> items, const Selector& how) {
  std::vector<int64_t> kept;
  std::vector<Item> free;
  double total = 0, sum = 0;
  int64_t count = 0;
  for (const Item& i : items) {
    if (i.score != -kInf) total += i.score;
    if (i.forced) kept.push_back(i.index);
    if (i.forced && how.forced_counts) {
      count += 1;
      if (i.score != -kInf) sum += i.score;
    } else if (i.score != -kInf) {
      free.push_back(i);
    }
  }
  std::stable_sort(free.begin(), free.end(),
                   [](const Item& a, const Item& b) { return a.score > b.score; });
  const double goal = how.amount * total;
  // How many of the sorted free items the cut takes.
  int64_t cut = 0;
  if (how.cut == Selector::Cut::top_k) {
    const double k =
        how.round == Selector::Round::ceil ? std::ceil(how.amount) : std::floor(how.amount);
    cut = int64_t(std::clamp<double>(k - double(count), 0, double(free.size())));
  } else {
    double so_far = sum;
    for (const Item& i : free) {
      const bool in = how.cut == Selector::Cut::threshold ? i.score > how.amount
                      : how.keep_crossing                 ? so_far < goal
                                                          : so_far + i.score <= goal;
      if (!in) break;
      so_far += i.score;
      ++cut;
    }
  }
  const int64_t most = std::max<int64_t>(0, how.max_count - count);
  const int64_t least = std::max<int64_t>(0, how.min_count - count);
  cut = std::max(cut, least);
  if (how.cut == Selector::Cut::coverage && goal > 0) cut += how.extra;
  cut = std::min({cut, most, int64_t(free.size())});
  for (int64_t n = 0; n < cut; ++n) kept.push_back(free[size_t(n)].index);
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

TileBits naive_select(const BlockScores& s, const Selector& how) {
  TileBits out(s.batch, s.heads, s.rows, s.cols);
  const int64_t rows = s.batch * s.heads * s.rows;
  const int64_t together = how.scope == Selector::Scope::row    ? 1
                           : how.scope == Selector::Scope::head ? s.rows
                                                                : rows;
  for (int64_t first = 0; first < rows; first += together) {
    std::vector<Item> items;
    for (int64_t n = first * s.cols; n < (first + together) * s.cols; ++n) {
      const int64_t c = n % s.cols, r = n / s.cols % s.rows, h = n / s.cols / s.rows % s.heads,
                    b = n / s.cols / s.rows / s.heads;
      const TileBits* f = how.forced;
      const bool forced = f && f->get(f->batch == 1 ? 0 : b, f->heads == 1 ? 0 : h, r, c);
      items.push_back({n, std::isnan(s.s[n]) ? -kInf : double(s.s[n]), forced});
    }
    for (int64_t n : naive(items, how))
      out.set(n / s.cols / s.rows / s.heads, n / s.cols / s.rows % s.heads, n / s.cols % s.rows,
              n % s.cols);
  }
  return out;
}

TEST(Select, EqualsTheNaiveSelector) {
  std::mt19937 g(7);
  const auto pick = [&](int n) { return int(g() % uint32_t(n)); };
  int64_t kept = 0, free = 0;
  for (int round = 0; round < 6000; ++round) {
    BlockScores s;
    s.batch = 1 + pick(2), s.heads = 1 + pick(3), s.rows = 1 + pick(4), s.cols = 1 + pick(70);
    // Eighths add exactly, so a sum meets its goal exactly and often; few values, so ties abound.
    for (int64_t n = 0; n < s.batch * s.heads * s.rows * s.cols; ++n) {
      const int kind = pick(40);
      s.s.push_back(kind == 0 ? std::nanf("") : kind == 1 ? -kInf : float(pick(1 + pick(9))) / 8);
    }
    TileBits forced(pick(2) ? 1 : s.batch, pick(2) ? 1 : s.heads, s.rows, s.cols);
    for (int64_t b = 0; b < forced.batch; ++b)
      for (int64_t h = 0; h < forced.heads; ++h)
        for (int64_t r = 0; r < s.rows; ++r)
          for (int64_t c = 0; c < s.cols; ++c) forced.set(b, h, r, c, pick(9) == 0);
    Selector how;
    how.cut = Selector::Cut(pick(3));
    how.scope = Selector::Scope(pick(3));
    how.round = Selector::Round(pick(2));
    how.keep_crossing = pick(2);
    how.forced_counts = pick(2);
    if (pick(2)) how.forced = &forced;
    if (pick(4) == 0) how.extra = pick(3);
    if (pick(4) == 0) how.min_count = pick(12);
    if (pick(4) == 0) how.max_count = how.min_count + pick(12);
    how.amount = how.cut == Selector::Cut::top_k ? double(pick(80)) / 2 - 1 : double(pick(10)) / 8;
    const TileBits got = select({round % 50 ? 1 : 3, nullptr}, s, how);
    ASSERT_TRUE(got == naive_select(s, how)) << "round " << round;
    kept += got.count();
    free += int64_t(s.s.size()) - got.count();
  }
  EXPECT_GT(kept, 50000);  // neither everything nor nothing was chosen
  EXPECT_GT(free, 50000);
}

TEST(Select, TopIndices) {
  const float s[] = {1, 3, 3, -kInf, 3, std::nanf(""), 2};
  using Ids = std::vector<int64_t>;
  EXPECT_EQ(top_indices(s, 7, 2), (Ids{1, 2}));
  EXPECT_EQ(top_indices(s, 7, 4), (Ids{1, 2, 4, 6}));
  EXPECT_EQ(top_indices(s, 7, 99), (Ids{0, 1, 2, 4, 6}));
  EXPECT_EQ(top_indices(s, 7, 0), Ids{});
}

TEST(Select, TopIndicesOfLongRowsFullOfTies) {
  std::mt19937 g(11);
  for (int round = 0; round < 400; ++round) {
    const int64_t n = 1 + int64_t(g() % 900), k = int64_t(g() % uint32_t(n + 9));
    const int values = round % 3 == 0 ? 3 : round % 3 == 1 ? 40 : 1 << 20;
    std::vector<float> s;
    for (int64_t j = 0; j < n; ++j) {
      const int kind = int(g() % 50);
      const float x = float(int(g() % uint32_t(values)) - values / 2) / 8;
      // Rising rows are the hardest: every number is the best so far.
      s.push_back(kind == 0   ? std::nanf("")
                  : kind == 1 ? -std::nanf("")
                  : kind == 2 ? -kInf
                  : kind == 3 ? kInf
                  : kind == 4 ? -0.0f
                  : round % 5 ? x
                              : float(j));
    }
    std::vector<int64_t> order;
    for (int64_t j = 0; j < n; ++j)
      if (!std::isnan(s[size_t(j)]) && s[size_t(j)] != -kInf) order.push_back(j);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return s[size_t(a)] > s[size_t(b)]; });
    order.resize(std::min(order.size(), size_t(k)));
    std::sort(order.begin(), order.end());
    ASSERT_EQ(top_indices(s.data(), n, k), order) << "round " << round << " n " << n << " k " << k;
  }
}

Problem strip(int64_t nq, int64_t nk, int64_t offset) {
  Problem p;
  p.nq = nq, p.nk = nk, p.offset = offset, p.dk = p.dv = 8, p.scale = 1;
  return p;
}

TEST(Keep, SetsByTheirDefinition) {
  for (const auto& [nq, nk, offset] :
       {std::tuple{100, 100, 0}, {64, 300, 236}, {70, 300, 200}, {1, 65, 64}, {40, 20, -20}})
    for (int bq : {16, 32})
      for (int bk : {16, 24}) {
        const Problem p = strip(nq, nk, offset);
        const TileBits causal = keep::causal(p, bq, bk), own = keep::diagonal(p, bq, bk),
                       sink = keep::sink(p, bq, bk, 17), early = keep::rows_before(p, bq, bk, 48);
        EXPECT_EQ(keep::none(p, bq, bk).count(), 0);
        EXPECT_EQ(keep::all(p, bq, bk).count(), causal.rows * causal.cols);
        for (int64_t r = 0; r < causal.rows; ++r)
          for (int64_t c = 0; c < causal.cols; ++c) {
            bool sees = false, is_own = false;
            for (int64_t i = r * bq; i < std::min<int64_t>((r + 1) * bq, nq); ++i)
              for (int64_t j = c * bk; j < std::min<int64_t>((c + 1) * bk, nk); ++j) {
                sees |= j <= i + offset;
                is_own |= j == i + offset;
              }
            EXPECT_EQ(causal.get(0, 0, r, c), sees);
            EXPECT_EQ(own.get(0, 0, r, c), is_own);
            EXPECT_EQ(sink.get(0, 0, r, c), c * bk < 17);
            EXPECT_EQ(early.get(0, 0, r, c), offset + r * bq < 48);
          }
      }
}

}  // namespace
}  // namespace regard
