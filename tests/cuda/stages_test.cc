// Stages on a GPU against the same stages on the CPU: scores with the same bits, plans with the
// same integers. Skipped, with the reason, where there is no GPU.
#include <bit>

#include "check.h"
#include "exec/planted.h"
#include "regard/method.h"
#include "stages/device.h"
#include "stages/lists.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the rows of q and k are made of; each has broken some selector somewhere.
enum class Content { normal, sharp, equal, few, zero, nan, infinite, huge, tiny, outlier, planted };
constexpr Content kContents[] = {Content::normal,   Content::sharp,  Content::equal,
                                 Content::few,      Content::zero,   Content::nan,
                                 Content::infinite, Content::huge,   Content::tiny,
                                 Content::outlier,  Content::planted};

void fill(Rng& g, const View& v, Content content) {
  std::normal_distribution<float> normal(0, content == Content::sharp ? 4.0f : 1.0f);
  std::vector<float> row(size_t(v.size[3]));
  for (int64_t a = 0; a < v.size[0]; ++a)
    for (int64_t b = 0; b < v.size[1]; ++b)
      for (int64_t n = 0; n < v.size[2]; ++n) {
        for (size_t c = 0; c < row.size(); ++c) {
          row[c] = normal(g);
          if (content == Content::equal) row[c] = 0.5f;
          if (content == Content::few) row[c] = float(pick(g, -1, 1));
          if (content == Content::zero) row[c] = coin(g, 0.5) ? 0.0f : -0.0f;
          if (content == Content::huge) row[c] *= 3e3f;
          if (content == Content::tiny) row[c] *= 1e-7f;
          if (content == Content::outlier && c == 0) row[c] = 300;
        }
        const float odd = content == Content::nan        ? kNan
                          : content == Content::infinite ? (coin(g) ? 1 : -1) * kInfinity
                                                         : 0;
        if (odd != 0 && coin(g, 0.02)) row[size_t(pick(g, 0, v.size[3] - 1))] = odd;
        write_row(v, a, b, n, row.data());
      }
}

void copy(const View& from, const View& to) {
  std::vector<float> row(size_t(from.size[3]));
  for (int64_t a = 0; a < from.size[0]; ++a)
    for (int64_t b = 0; b < from.size[1]; ++b)
      for (int64_t n = 0; n < from.size[2]; ++n) {
        read_row(from, a, b, n, row.data());
        write_row(to, a, b, n, row.data());
      }
}

// The same inputs on both sides.
struct Both {
  Tensor q, k, dq, dk;
  Inputs host, device;

  Both(Rng& g, const Problem& p, DType type, Content content, bool causal) {
    q = make_tensor(type, {p.batch, p.heads, p.nq, p.dk});
    k = make_tensor(type, {p.batch, p.kv_heads, p.nk, p.dk});
    if (content == Content::planted) {
      const std::vector<PlantedKind>& kinds = planted_kinds();
      const Planted made =
          planted(kinds[size_t(pick(g, 0, int64_t(kinds.size()) - 1))].name, p, g());
      copy(made.q.view, q.view), copy(made.k.view, k.view);
    } else {
      fill(g, q.view, content), fill(g, k.view, content);
    }
    dq = cuda::to_device(q.view), dk = cuda::to_device(k.view);
    host.q = q.view, host.k = host.v = k.view;
    host.problem = p, host.causal = causal;
    device = host;
    device.q = dq.view, device.k = device.v = dk.view;
  }
};

Problem problem(Rng& g, int64_t most) {
  Problem p;
  p.batch = pick(g, 1, 2), p.kv_heads = pick(g, 1, 2), p.heads = p.kv_heads * pick(g, 1, 3);
  p.nq = pick(g, 1, most), p.nk = pick(g, 1, most);
  const int64_t sizes[] = {8, 20, 32, 64, 80, 96, 128, 136, 192, 256};
  p.dk = p.dv = sizes[pick(g, 0, 9)];
  p.scale = 1 / std::sqrt(float(p.dk));
  p.offset = coin(g, 0.8) ? p.nk - p.nq : pick(g, -20, p.nk);
  return p;
}

int64_t different(const float* a, const float* b, size_t n) {
  int64_t out = 0;
  for (size_t i = 0; i < n; ++i)
    out += std::bit_cast<uint32_t>(a[i] + 0.0f) != std::bit_cast<uint32_t>(b[i] + 0.0f) &&
           !(std::isnan(a[i]) && std::isnan(b[i]));
  return out;
}
template <class A>
int64_t different(const std::vector<float, A>& a, const std::vector<float, A>& b) {
  return a.size() != b.size() ? -1 : different(a.data(), b.data(), a.size());
}

class CudaStages : public testing::TestWithParam<Content> {
 protected:
  void SetUp() override {
    if (std::string why = cuda::absence(); !why.empty()) GTEST_SKIP() << why;
  }
  template <class Check>
  void each(int cases, int64_t most, const Check& check) {
    Rng g(uint64_t(GetParam()) * 1000 + 1);
    for (int n = 0; n < cases; ++n) {
      const Problem p = problem(g, most);
      const DType type = coin(g) ? DType::bf16 : DType::f16;
      const Both x(g, p, type, GetParam(), coin(g, 0.8));
      SCOPED_TRACE(p.str() + " offset " + std::to_string(p.offset) + " " + info(type).name +
                   (x.host.causal ? " causal" : ""));
      check(g, x);
      if (HasFailure()) return;
    }
  }
  static constexpr Ctx kCtx{1, nullptr, nullptr};
};

TEST_P(CudaStages, AntidiagonalHasTheSameBits) {
  each(60, 400, [](Rng& g, const Both& x) {
    const std::pair<int, int> sizes[] = {{128, 16}, {64, 8}, {128, 8}, {32, 32},
                                         {96, 16},  {16, 1}, {128, 1}, {48, 4}};
    const auto [block, stride] = sizes[pick(g, 0, 7)];
    const auto a = estimate::antidiagonal(kCtx, x.host, block, stride);
    const auto b = on_host(estimate::antidiagonal(kCtx, x.device, block, stride));
    EXPECT_EQ(different(a.s, b.s), 0) << block << " " << stride << " of " << a.s.size();
  });
}

TEST_P(CudaStages, PooledMeansHaveTheSameBits) {
  each(60, 400, [](Rng& g, const Both& x) {
    const int bq = int(pick(g, 1, 130)), bk = int(pick(g, 1, 130));
    const auto a = estimate::pooled_means(kCtx, x.host, bq, bk);
    const auto b = on_host(estimate::pooled_means(kCtx, x.device, bq, bk));
    EXPECT_EQ(different(a.s, b.s), 0) << bq << " " << bk << " of " << a.s.size();
  });
}

TEST_P(CudaStages, TheProbeHasTheSameBits) {
  each(60, 400, [](Rng& g, Both x) {
    const int last = int(pick(g, 1, 150));
    if (coin(g, 0.3))
      for (Inputs* i : {&x.host, &x.device}) {
        i->norm.kind = NormKind::softmax_sink;
        i->norm.sink.assign(size_t(i->problem.heads), 0.75f);
      }
    const auto a = estimate::vertical_slash(kCtx, x.host, last);
    const auto b = on_host(estimate::vertical_slash(kCtx, x.device, last));
    EXPECT_EQ(different(a.vertical, b.vertical), 0) << last << " of " << a.vertical.size();
    EXPECT_EQ(different(a.slash, b.slash), 0) << last << " of " << a.slash.size();
  });
}

TEST_P(CudaStages, TheSelectorKeepsTheSame) {
  each(60, 300, [](Rng& g, const Both& x) {
    const int bq = int(pick(g, 4, 60)), bk = int(pick(g, 1, 40));
    const auto device = estimate::pooled_means(kCtx, x.device, bq, bk);
    const auto host = on_host(device);
    const bool shared = coin(g);
    TileBits forced(shared ? 1 : host.batch, shared ? 1 : host.heads, host.rows, host.cols);
    for (int64_t bit = pick(g, 0, 30); bit > 0; --bit)
      forced.set(pick(g, 0, forced.batch - 1), pick(g, 0, forced.heads - 1),
                 pick(g, 0, host.rows - 1), pick(g, 0, host.cols - 1));
    for (int n = 0; n < 12; ++n) {
      Selector how;
      how.cut = Selector::Cut(pick(g, 0, 2));
      how.amount =
          how.cut == Selector::Cut::top_k ? double(pick(g, 0, 40)) / 2 : pick(g, -2, 12) / 8.0;
      how.keep_crossing = coin(g), how.forced_counts = coin(g);
      how.round = coin(g) ? Selector::Round::floor : Selector::Round::ceil;
      how.extra = pick(g, 0, 2), how.min_count = pick(g, 0, 3);
      if (coin(g, 0.3)) how.max_count = pick(g, 0, 5);
      if (coin(g)) how.forced = &forced;
      std::vector<double> amounts(size_t(host.batch * host.heads * host.rows));
      for (double& a : amounts) a = double(pick(g, 0, 12)) / 3;
      if (coin(g, 0.2)) how.amounts = &amounts;
      EXPECT_TRUE(select(kCtx, host, how) == select(kCtx, device, how)) << n;
    }
  });
}

void expect_equal(const Plan& a, const Plan& b) {
  ASSERT_EQ(a.branches.size(), b.branches.size());
  for (size_t n = 0; n < a.branches.size(); ++n) {
    const IndexList *x = a.branches[n].cover.list.get(), *y = b.branches[n].cover.list.get();
    ASSERT_EQ(bool(x), bool(y));
    if (!x) continue;
    EXPECT_EQ(x->start, y->start);
    EXPECT_EQ(x->index, y->index);
  }
}

// Bits on the GPU: their set algebra with bits on either side, and their lists, lowered there or,
// where the rule is more than causality, here.
TEST_P(CudaStages, BitsAndTheirListsAreTheSame) {
  each(60, 900, [](Rng& g, const Both& x) {
    const Problem& p = x.host.problem;
    const int bq = int(pick(g, 1, 70)), bk = int(pick(g, 1, 70));
    const auto put = [&](const TileBits& bits) { return device::put(bits, x.dq.view, nullptr); };
    const TileBits a = random_bits(g, p, p.nk, bq, bk, coin(g) ? 0.5 : 0.05);
    TileBits b(coin(g) ? 1 : a.batch, coin(g) ? 1 : a.heads, a.rows, a.cols);
    for (int64_t bit = pick(g, 0, 2 * b.rows * b.cols); bit > 0; --bit)
      b.set(pick(g, 0, b.batch - 1), pick(g, 0, b.heads - 1), pick(g, 0, b.rows - 1),
            pick(g, 0, b.cols - 1));
    EXPECT_TRUE((a | b) == (put(a) | b) && (a | b) == (a | put(b)) && (a | b) == (put(a) | put(b)));
    EXPECT_TRUE((a & b) == (put(a) & b) && (a & b) == (a & put(b)));
    EXPECT_TRUE((a - b) == (put(a) - b) && (a - b) == (a - put(b)));
    EXPECT_EQ(a.count(), put(a).count());
    Plan host = Plan::tiles(p, bq, bk, a), device = Plan::tiles(p, bq, bk, put(a));
    expect_equal(host, device);
    for (Plan* plan : {&host, &device}) plan->causal(x.host.causal);
    if (coin(g, 0.2))
      for (Plan* plan : {&host, &device}) plan->window({30, -1, 3});
    host.lower(), device.lower();
    expect_equal(host, device);
    device.validate();
    EXPECT_EQ(hash(host), hash(device));
  });
}

// The lists of columns and diagonals, from many keys.
TEST_P(CudaStages, SlashListsAreTheSame) {
  each(6, 6000, [](Rng& g, const Both& x) {
    const Problem& p = x.host.problem;
    auto device = estimate::vertical_slash(kCtx, x.device, 64);
    auto host = on_host(device);
    if (coin(g, 0.7)) lists::force(host, 30, 100), lists::force(device, 30, 100);
    for (int n = 0; n < 4; ++n) {
      const int64_t columns = pick(g, 0, n ? 600 : 7000), diagonals = pick(g, 0, n ? 900 : 7000);
      const auto a = lists::vertical_slash(kCtx, p, host, columns, diagonals);
      const auto b = lists::vertical_slash(kCtx, p, device, columns, diagonals);
      EXPECT_TRUE(a.tiles == b.tiles) << columns << " " << diagonals;
      EXPECT_EQ(a.columns->start, b.columns->start) << columns << " " << diagonals;
      EXPECT_EQ(a.columns->index, b.columns->index) << columns << " " << diagonals;
      const auto plan = [&](const auto& kept) {
        return Plan::same(
                   {Plan::tiles(p, kept.bq, kept.bk, kept.tiles), Plan::columns(p, kept.columns)})
            .causal(x.host.causal)
            .lower();
      };
      expect_equal(plan(a), plan(b));
    }
  });
}

TEST_P(CudaStages, PlansHaveTheSameIntegers) {
  const char* const specs[] = {
      "xattention:threshold=0.9,block=64,stride=8",
      "xattention:threshold=0.7,block=32,stride=4,forced=code,chunk=100",
      "xattention",
      "block_sparse:top_k=3,block=32",
      "moba:topk=3,chunk=32",
      "vertical_slash:vertical_size=40,slash_size=120,last_q=32",
      "vertical_slash:vertical_size=200,slash_size=60",
      "flexprefill:gamma=0.8,min_budget=32,block=32",
      "flexprefill:gamma=0.9,min_budget=16,block=16,tau=0.3,cut=code",
  };
  int made = 0;
  each(40, 500, [&](Rng&, const Both& x) {
    for (const char* spec : specs) {
      const Method m = parse_method(spec);
      if (!refusal(m, x.host).empty()) continue;
      SCOPED_TRACE(spec);
      expect_equal(make_plan(m, x.host, kCtx), make_plan(m, x.device, kCtx));
      ++made;
    }
  });
  EXPECT_GT(made, 40);
}

INSTANTIATE_TEST_SUITE_P(Contents, CudaStages, testing::ValuesIn(kContents));

}  // namespace
}  // namespace regard
