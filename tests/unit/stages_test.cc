// Estimators and lists against fp64 loops over their definitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "stages/estimate.h"
#include "stages/lists.h"
#include "stages/slopes.h"

namespace regard {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Case {
  int64_t batch, heads, kv_heads, nq, nk, d, offset;
  bool causal;
  DType dtype;
};
const Case kCases[] = {
    {1, 1, 1, 64, 64, 32, 0, true, DType::f32},    {2, 4, 2, 50, 83, 20, 33, true, DType::f16},
    {1, 6, 2, 37, 300, 64, 263, true, DType::f32}, {1, 2, 1, 70, 70, 40, 0, false, DType::bf16},
    {1, 2, 2, 33, 200, 16, 101, true, DType::f32}, {1, 3, 1, 1, 129, 24, 128, true, DType::f16},
    {1, 1, 1, 90, 60, 8, -10, true, DType::f32},   {1, 1, 1, 1, 1, 8, 0, true, DType::f32},
};

struct Data {
  Tensor q, k, v;
  Inputs x;
  explicit Data(const Case& c) {
    q = make_tensor(c.dtype, {c.batch, c.heads, c.nq, c.d});
    k = make_tensor(c.dtype, {c.batch, c.kv_heads, c.nk, c.d});
    v = make_tensor(c.dtype, {c.batch, c.kv_heads, c.nk, c.d});
    std::mt19937 g(3);
    std::normal_distribution<float> normal(0, 1.5f);
    for (const Tensor* t : {&q, &k, &v})
      for (int64_t a = 0; a < t->view.size[0]; ++a)
        for (int64_t b = 0; b < t->view.size[1]; ++b)
          for (int64_t n = 0; n < t->view.size[2]; ++n) {
            std::vector<float> row(size_t(c.d));
            for (float& f : row) f = normal(g);
            write_row(t->view, a, b, n, row.data());
          }
    x.q = q.view, x.k = k.view, x.v = v.view;
    x.problem = Problem::of_views(x.q, x.k, x.v);
    x.problem.offset = c.offset;
    x.causal = c.causal;
  }
  double dot(int64_t b, int64_t h, int64_t i, int64_t j) const {
    std::vector<double> a(size_t(x.problem.dk)), c(a);
    read_row(x.q, b, h, i, a.data());
    read_row(x.k, b, h / x.problem.group(), j, c.data());
    double sum = 0;
    for (size_t t = 0; t < a.size(); ++t) sum += a[t] * c[t];
    return sum;
  }
  // The row's probabilities, by definition.
  std::vector<double> probabilities(int64_t b, int64_t h, int64_t i) const {
    const Problem& p = x.problem;
    std::vector<double> s(size_t(p.nk), -kInf);
    for (int64_t j = 0; j < p.nk; ++j) {
      if (x.causal && j > i + p.offset) continue;
      double y = dot(b, h, i, j) * p.scale;
      if (x.score.softcap > 0) y = x.score.softcap * std::tanh(y / x.score.softcap);
      if (!x.score.alibi.empty()) y -= x.score.alibi[h] * std::abs(double(i + p.offset - j));
      s[j] = y;
    }
    const double sink = x.norm.sink.empty() ? -kInf : x.norm.sink[h];
    const double top = std::max(sink, *std::max_element(s.begin(), s.end()));
    double sum = std::exp(sink - top);
    for (double& y : s) sum += y = top == -kInf ? 0 : std::exp(y - top);
    for (double& y : s) y = sum > 0 ? y / sum : 0;
    return s;
  }
};

double as_bf16(double x) {
  const Tensor one = make_tensor(DType::bf16, {1, 1, 1, 1});
  write_row(one.view, 0, 0, 0, &x);
  read_row(one.view, 0, 0, 0, &x);
  return x;
}

// 16-bit rows are rounded to levels (levels.h), f32 rows are not. Levels lie between bf16 and f16:
// they may do no more than rounding the logits to bf16, which is what the authors' code does.
TEST(Estimate, AntidiagonalIsItsDefinition) {
  for (const Case& c : kCases)
    for (const auto& [block, stride] : {std::pair{16, 4}, {32, 8}, {8, 8}, {16, 1}}) {
      const Data d(c);
      const auto got = estimate::antidiagonal({2, nullptr}, d.x, block, stride);
      const int64_t qg = (c.nq + stride - 1) / stride, kg = (c.nk + stride - 1) / stride;
      for (int64_t b = 0; b < c.batch; ++b)
        for (int64_t h = 0; h < c.heads; ++h) {
          std::vector<double> want(size_t(got.rows * got.cols), 0.0), naive = want;
          for (int64_t gi = 0; gi < qg; ++gi) {
            std::vector<double> s(size_t(kg), -kInf);
            for (int64_t gj = 0; gj < kg; ++gj) {
              const int64_t last = std::min((gi + 1) * stride, c.nq) - 1;
              if (c.causal && gj * stride > last + c.offset) continue;
              s[gj] = 0;
              for (int64_t t = 0; t < stride; ++t) {
                const int64_t i = gi * stride + stride - 1 - t, j = gj * stride + t;
                if (i < c.nq && j < c.nk) s[gj] += d.dot(b, h, i, j);
              }
              s[gj] *= d.x.problem.scale / double(stride);
            }
            const double top = *std::max_element(s.begin(), s.end());
            if (top == -kInf) continue;
            std::vector<double> low(s.size());
            for (size_t gj = 0; gj < s.size(); ++gj)
              low[gj] = c.dtype == DType::f32 ? s[gj] : as_bf16(s[gj]);
            for (double& y : low) y = std::exp(y - top);
            double sum = 0;
            for (double& y : s) sum += y = std::exp(y - top);
            double naive_sum = 0;
            for (int64_t gj = 0; gj < kg; ++gj) {
              const int64_t tile = gi * stride / block * got.cols + gj * stride / block;
              want[tile] += s[gj] / sum;
              naive_sum += low[gj];
            }
            for (int64_t gj = 0; gj < kg; ++gj)
              naive[gi * stride / block * got.cols + gj * stride / block] += low[gj] / naive_sum;
          }
          double bound = 0;
          for (size_t n = 0; n < want.size(); ++n)
            bound = std::max(bound, std::abs(naive[n] - want[n]));
          bound += 2e-6 * block / stride;
          for (int64_t n = 0; n < got.rows * got.cols; ++n)
            ASSERT_NEAR(got.row(b, h, 0)[n], want[n], bound);
        }
    }
}

TEST(Estimate, PooledMeansAreTheirDefinition) {
  for (const Case& c : kCases) {
    const Data d(c);
    const int bq = 16, bk = 24;
    const auto got = estimate::pooled_means({2, nullptr}, d.x, bq, bk);
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t r = 0; r < got.rows; ++r)
          for (int64_t col = 0; col < got.cols; ++col) {
            const int64_t i1 = std::min<int64_t>((r + 1) * bq, c.nq),
                          j1 = std::min<int64_t>((col + 1) * bk, c.nk);
            const float x = got.row(b, h, r)[col];
            if (c.causal && col * bk > i1 - 1 + c.offset) {
              EXPECT_EQ(x, -kInf);
              continue;
            }
            double sum = 0;  // the mean of dots is the dot of means
            for (int64_t i = r * bq; i < i1; ++i)
              for (int64_t j = col * bk; j < j1; ++j) sum += d.dot(b, h, i, j);
            sum *= d.x.problem.scale / double((i1 - r * bq) * (j1 - col * bk));
            EXPECT_NEAR(x, sum, 1e-5);
          }
  }
}

void check_mass(const Data& d, int bq, int bk) {
  const Problem& p = d.x.problem;
  const auto mass = estimate::block_mass({2, nullptr}, d.x, bq, bk);
  const int last = 20;
  const auto probe = estimate::vertical_slash({2, nullptr}, d.x, last);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      std::vector<double> tiles(size_t(mass.rows * mass.cols)), vertical(size_t(p.nk)),
          slash(size_t(probe.offsets));
      for (int64_t i = 0; i < p.nq; ++i) {
        const std::vector<double> row = d.probabilities(b, h, i);
        for (int64_t j = 0; j < p.nk; ++j) {
          tiles[i / bq * mass.cols + j / bk] += row[j];
          if (i < p.nq - last) continue;
          vertical[j] += row[j];
          if (i + p.offset >= j) slash[i + p.offset - j] += row[j];
        }
      }
      for (size_t n = 0; n < tiles.size(); ++n) ASSERT_NEAR(mass.row(b, h, 0)[n], tiles[n], 1e-5);
      for (int64_t j = 0; j < p.nk; ++j)
        ASSERT_NEAR(probe.vertical[(b * p.heads + h) * p.nk + j], vertical[j], 1e-5);
      for (int64_t o = 0; o < probe.offsets; ++o)
        ASSERT_NEAR(probe.slash[(b * p.heads + h) * probe.offsets + o], slash[o], 1e-5);
    }
}

// Tiles of 24 keys go by way of single probabilities, the others by TileSums.
void check_mass(const Data& d) {
  check_mass(d, 16, 24);
  check_mass(d, 16, 32);
  check_mass(d, 80, 64);
}

TEST(Estimate, MassAndProbeAreExactAttention) {
  for (const Case& c : kCases) check_mass(Data(c));
}

// The fewest of the shares that reach gamma of all, sorted and added one by one in units of 2^-32.
int64_t fewest(std::vector<float> shares, double gamma) {
  std::sort(shares.begin(), shares.end(), std::greater<>());
  std::vector<int64_t> units;
  int64_t total = 0, sum = 0, n = 0;
  for (const float s : shares) {
    units.push_back(int64_t(std::floor(double(s) * 4294967296.0)));
    total += units.back();
  }
  do {
    sum += units[n++];
  } while (n < int64_t(units.size()) && double(sum) < gamma * double(total));
  return n;
}

TEST(Estimate, ProbeByTilesCountsTheFewestTokens) {
  for (const Case& c : kCases)
    for (const double gamma : {0.0, 0.25, 0.5, 0.9, 1.0, 2.0}) {
      if (!c.causal) continue;
      Data d(c);
      if (c.batch == 2)  // all alike: ties
        for (int64_t n = 0; n < c.nq; ++n)
          for (int64_t h = 0; h < c.heads; ++h)
            write_row(d.q.view, 1, h, n, std::vector<float>(size_t(c.d)).data());
      const int block = 16;
      const auto probe = estimate::vertical_slash({1, nullptr}, d.x, block);
      const auto got = estimate::probe_tiles({2, nullptr}, d.x, block, gamma);
      const int64_t length = std::max<int64_t>(1, c.offset + c.nq), keys = std::min(c.nk, length);
      for (int64_t bh = 0; bh < c.batch * c.heads; ++bh) {
        const float* const v = &probe.vertical[bh * probe.nk];
        const float* const s = &probe.slash[bh * probe.offsets];
        for (int64_t t = 0; t < got.columns; ++t) {
          double sum = 0;
          for (int64_t j = t * block; j < std::min<int64_t>(keys, (t + 1) * block); ++j)
            sum += v[j];
          EXPECT_EQ(got.vertical[bh * got.columns + t], sum);
        }
        for (int64_t t = 0; t < got.diagonals; ++t) {
          double sum = 0;
          for (int64_t o = t * block; o < std::min<int64_t>(length, (t + 1) * block); ++o)
            sum += s[o];
          EXPECT_EQ(got.slash[bh * got.diagonals + t], sum);
        }
        EXPECT_EQ(got.vertical_tokens[bh], gamma > 0 ? fewest({v, v + keys}, gamma) : 0);
        EXPECT_EQ(got.slash_tokens[bh], gamma > 0 ? fewest({s, s + length}, gamma) : 0);
      }
    }
}

// Every tile asked for by its column or by its diagonal, one by one.
TEST(Lists, VerticalSlashTilesAreColumnsAndDiagonals) {
  std::mt19937 g(5);
  for (int round = 0; round < 200; ++round) {
    Problem p;
    p.heads = 2, p.dk = p.dv = 8, p.scale = 1;
    const int block = 1 + int(g() % 9);
    p.nq = 1 + int64_t(g() % 300), p.nk = 1 + int64_t(g() % 900);
    p.offset = round % 2 ? p.nk - p.nq : int64_t(g() % 400) - 50;
    const int64_t length = std::max<int64_t>(1, p.offset + p.nq), keys = std::min(p.nk, length);
    estimate::ProbeTiles s;
    s.batch = 1, s.heads = 2, s.block = block;
    s.columns = (keys + block - 1) / block, s.diagonals = (length + block - 1) / block;
    for (int64_t n = 0; n < 2 * s.columns; ++n) s.vertical.push_back(double(g() % 5));
    for (int64_t n = 0; n < 2 * s.diagonals; ++n) s.slash.push_back(double(g() % 5));
    for (int h = 0; h < 2; ++h) {
      s.vertical_tokens.push_back(int64_t(g() % 40)), s.slash_tokens.push_back(int64_t(g() % 40));
    }
    const int64_t least = int64_t(g() % 4);
    const bool smallest = round % 5 == 0;
    Inputs x;
    x.problem = p;
    const TileBits got = lists::vertical_slash_tiles({1, nullptr}, x, s, least, smallest);
    for (int64_t h = 0; h < 2; ++h) {
      const auto best = [&](const double* x, int64_t n, int64_t tokens) {
        std::vector<int64_t> ids;
        for (int64_t i = 1; i < n; ++i) ids.push_back(i);
        std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) { return x[a] > x[b]; });
        ids.insert(ids.begin(), 0);
        const int64_t count = std::max(smallest ? 1 : tokens / block + 1, least);
        ids.resize(size_t(std::min(count, n)));
        return std::vector<bool>([&] {
          std::vector<bool> in(size_t(n), false);
          for (const int64_t i : ids) in[size_t(i)] = true;
          return in;
        }());
      };
      const auto v = best(&s.vertical[h * s.columns], s.columns, s.vertical_tokens[h]);
      const auto o = best(&s.slash[h * s.diagonals], s.diagonals, s.slash_tokens[h]);
      for (int64_t r = 0; r < got.rows; ++r)
        for (int64_t c = 0; c < got.cols; ++c) {
          bool want = false;
          for (int64_t i = r * block; i < std::min<int64_t>(p.nq, (r + 1) * block); ++i) {
            const int64_t own = (i + p.offset) / block;
            if (i + p.offset < 0 || c > own) continue;
            want |= o[size_t(own - c)] || (c < s.columns && v[size_t(c)]);
          }
          ASSERT_EQ(got.get(0, h, r, c), want) << round << " row " << r << " column " << c;
        }
    }
  }
}

TEST(Estimate, MassKnowsTheModelsScoreAndNorm) {
  for (const Case& c : kCases) {
    Data d(c);
    d.x.score.softcap = 2;
    d.x.score.alibi.assign(size_t(c.heads), 0.05f);
    d.x.norm.kind = NormKind::softmax_sink;
    d.x.norm.sink.assign(size_t(c.heads), 0.7f);
    check_mass(d);
    d.x.score.alibi.clear();
    check_mass(d);
  }
}

TEST(Estimate, ThreadsChangeNothing) {
  const Data d({2, 4, 2, 150, 333, 40, 183, true, DType::f16});
  for (int threads : {2, 3, 5}) {
    const Ctx one{1, nullptr}, many{threads, nullptr};
    EXPECT_EQ(estimate::antidiagonal(one, d.x, 32, 8).s,
              estimate::antidiagonal(many, d.x, 32, 8).s);
    EXPECT_EQ(estimate::pooled_means(one, d.x, 32, 8).s,
              estimate::pooled_means(many, d.x, 32, 8).s);
    EXPECT_EQ(estimate::block_mass(one, d.x, 32, 8).s, estimate::block_mass(many, d.x, 32, 8).s);
    EXPECT_EQ(estimate::vertical_slash(one, d.x, 64).vertical,
              estimate::vertical_slash(many, d.x, 64).vertical);
    EXPECT_EQ(estimate::vertical_slash(one, d.x, 64).slash,
              estimate::vertical_slash(many, d.x, 64).slash);
  }
}

// The walk over offsets and columns, step by step as in the authors' index builder.
std::vector<bool> walked(const std::vector<int64_t>& columns, const std::vector<int64_t>& offsets,
                         int64_t end, int64_t nk) {
  std::vector<bool> keep(size_t(nk), false);
  const auto set = [&](int64_t a, int64_t b) {
    for (int64_t j = a; j < std::min(b, nk); ++j) keep[size_t(j)] = true;
  };
  const std::vector<int64_t> far(offsets.rbegin(), offsets.rend());
  size_t s = 0, v = 0;
  while (s < far.size() && far[s] >= end) ++s;
  if (s == far.size()) return keep;
  const auto stop = [&](size_t n) { return std::max<int64_t>(end - far[n], 64); };
  int64_t b = stop(s), a = b - 64;
  for (++s;;) {
    if (v < columns.size() && columns[v] < b) {
      if (columns[v] < a) set(columns[v], columns[v] + 1);
      ++v;
      continue;
    }
    if (s == far.size()) break;
    const int64_t next = stop(s++);
    if (next > b + 64) {
      set(a, b);
      a = next - 64, b = next;
    } else if (next > b) {
      b += 64;
    }
  }
  set(a, b);
  return keep;
}

TEST(Lists, VerticalSlashKeepsTheAuthorsTokens) {
  std::mt19937 g(11);
  for (int round = 0; round < 400; ++round) {
    Problem p;
    p.heads = 2, p.dk = p.dv = 8, p.scale = 1;
    p.nq = 1 + int64_t(g() % 200), p.offset = round % 3 == 0 ? 0 : int64_t(g() % 600);
    p.nk = p.nq + p.offset;
    estimate::VerticalSlash s;
    s.batch = 1, s.heads = 2, s.nk = s.offsets = p.nk;
    for (int64_t n = 0; n < 2 * p.nk; ++n) {
      s.vertical.push_back(float(g() % 5));
      s.slash.push_back(float(g() % 5));
    }
    if (round % 4) lists::force(s, 30, 100);
    const int64_t columns = int64_t(g() % 60), diagonals = 1 + int64_t(g() % 200);
    const auto got = lists::vertical_slash({1, nullptr}, p, s, columns, diagonals);
    const auto best = [&](const float* x, int64_t k) {
      std::vector<int64_t> ids(size_t(p.nk));
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = int64_t(i);
      std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) { return x[a] > x[b]; });
      ids.resize(size_t(std::min(k, p.nk)));
      std::sort(ids.begin(), ids.end());
      return ids;
    };
    const Plan plan =
        Plan::same({Plan::tiles(p, got.bq, got.bk, got.tiles), Plan::columns(p, got.columns)})
            .causal();
    ASSERT_NO_THROW(plan.validate());  // tiles and columns are disjoint
    const BitMask tiles = expand(plan, 0), single = expand(plan, 1);
    for (int64_t h = 0; h < 2; ++h) {
      const auto v = best(&s.vertical[h * p.nk], columns), o = best(&s.slash[h * p.nk], diagonals);
      for (int64_t i = 0; i < p.nq; ++i) {
        const auto want = walked(v, o, p.offset + (i / 64 + 1) * 64, p.nk);
        for (int64_t j = 0; j < p.nk; ++j)
          ASSERT_EQ(tiles.get(0, h, i, j) || single.get(0, h, i, j),
                    want[size_t(j)] && j <= i + p.offset)
              << "round " << round << " query " << i << " key " << j;
      }
    }
  }
}

TEST(Slopes, ForAnyHeadCount) {
  const auto eight = alibi_slopes(8, 8, SlopeRule::nearest_power);
  for (int h = 0; h < 8; ++h) EXPECT_FLOAT_EQ(eight[size_t(h)], std::ldexp(1.0f, -(h + 1)));
  // 12 heads: the eight of 8, then the first, third, fifth and seventh of 16.
  const auto twelve = alibi_slopes(12, 8, SlopeRule::nearest_power);
  for (int h = 0; h < 8; ++h) EXPECT_FLOAT_EQ(twelve[size_t(h)], eight[size_t(h)]);
  for (int n = 0; n < 4; ++n)
    EXPECT_FLOAT_EQ(twelve[size_t(8 + n)], std::exp2(-8.0f * float(2 * n + 1) / 16));
  EXPECT_FLOAT_EQ(alibi_slopes(12, 8, SlopeRule::geometric)[11], std::ldexp(1.0f, -8));
}

}  // namespace
}  // namespace regard
