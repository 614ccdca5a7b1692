// Laws of attend(), on every implementation that will run the plan.
#include <gtest/gtest.h>

#include <cmath>

#include "case.h"
#include "regard/status.h"

namespace regard {
namespace {

using test::Case;
using test::check;
using test::Rng;
using test::values;
constexpr float kInf = std::numeric_limits<float>::infinity();

// Softmax attention.
void check_against_pairs(const Plan& plan, const Case& x, double tolerance) {
  check(
      plan, x, tolerance,
      [&](int64_t b, int64_t h, int64_t i, int64_t j) {
        return std::exp(x.p.scale *
                        test::dot(test::row(x.q, b, h, i), test::row(x.k, b, h / x.p.group(), j)));
      },
      [](int64_t, int64_t, int64_t, int64_t) { return true; });
}

// f32 kernels: sums of at most 70 products and 70 weights, values of order 3: 1e-5 is about 2 x
// what a naive f32 loop gives (measured 4e-6).
struct Impl {
  const char* name;
  double tolerance;
};
constexpr Impl kImpls[] = {{"ref", 1e-12}, {"cpu", 1e-5}};

class Laws : public testing::TestWithParam<Impl> {};
INSTANTIATE_TEST_SUITE_P(Each, Laws, testing::ValuesIn(kImpls),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(Laws, AttendIsSoftmaxOverThePairs) {
  Rng g(20);
  for (int n = 0; n < 200; ++n) {
    Case x(g, test::random_problem(g));
    const Plan plan = test::random_plan(g, x.p);
    if (plan.branches[0].source.kind != SourceKind::raw) continue;
    x.run(plan, GetParam().name);
    check_against_pairs(plan, x, GetParam().tolerance);
  }
}

TEST_P(Laws, OrdersAndSharedListsAreReadByToken) {
  Rng g(28);
  for (int n = 0; n < 200; ++n) {
    Case x(g, test::random_problem(g));
    Plan plan = test::random_plan(g, x.p);
    if (plan.branches[0].source.kind != SourceKind::raw) continue;
    if (test::coin(g)) test::random_sharing(g, &plan);
    if (test::coin(g, 0.8)) test::random_order(g, &plan);
    x.run(plan, GetParam().name);
    check_against_pairs(plan, x, GetParam().tolerance);
  }
}

TEST_P(Laws, DisjointBranchesUnderOneSoftmaxAreTheWhole) {
  Rng g(21);
  for (int n = 0; n < 100; ++n) {
    Case x(g, test::random_problem(g));
    const int bq = int(test::pick(g, 1, 20)), bk = int(test::pick(g, 1, 20));
    TileBits all(1, 1, (x.p.nq + bq - 1) / bq, (x.p.nk + bk - 1) / bk);
    all.fill(true);
    const TileBits some = test::random_bits(g, x.p, x.p.nk, bq, bk, 0.5);
    x.run(Plan::all(x.p).causal(), GetParam().name);
    const auto out = values(x.out), lse = values(x.lse);
    Plan split = Plan::same({Plan::tiles(x.p, bq, bk, some), Plan::tiles(x.p, bq, bk, all - some)});
    split.causal().validate();
    x.run(split, GetParam().name);
    const auto out2 = values(x.out), lse2 = values(x.lse);
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], out2[i], GetParam().tolerance);
    for (size_t i = 0; i < lse.size(); ++i)
      if (lse[i] != lse2[i]) {
        ASSERT_NEAR(lse[i], lse2[i], GetParam().tolerance);
      }
  }
}

TEST_P(Laws, GatesWeighFinishedBranches) {
  Rng g(22);
  Case x(g, test::random_problem(g));
  const Plan a = Plan::band(x.p, 3, -1), b = Plan::all(x.p);
  Tensor gate = make_tensor(DType::f32, {x.p.batch, x.p.heads, x.p.nq, 2});
  float* w = static_cast<float*>(gate.view.data);
  for (int64_t i = 0; i < gate.view.numel(); ++i) w[i] = i % 2 ? 0.25f : 0.5f;
  x.run(a, GetParam().name);
  const auto out_a = values(x.out);
  x.run(b, GetParam().name);
  const auto out_b = values(x.out);
  x.run(Plan::gated({a, b}, gate), GetParam().name);
  const auto out = values(x.out);
  for (size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], 0.5 * out_a[i] + 0.25 * out_b[i], GetParam().tolerance);
}

TEST_P(Laws, AGatedRowsLseIsThatOfItsBranchesTogether) {
  Rng g(22);
  for (const float bad : {0.f, std::nanf(""), kInf}) {
    Case x(g, test::random_problem(g));
    std::vector<float> key(size_t(x.p.dk), bad);
    if (bad != 0) write_row(x.k.view, 0, 0, 0, key.data());
    const Plan a = Plan::band(x.p, 0, 0), b = Plan::all(x.p);
    const Tensor gate = make_tensor(DType::f32, {x.p.batch, x.p.heads, x.p.nq, 2});
    x.run(a, GetParam().name);
    const auto lse_a = values(x.lse);
    x.run(b, GetParam().name);
    const auto lse_b = values(x.lse);
    for (const Plan& both : {Plan::gated({a, b}, gate), Plan::gated({b, a}, gate)}) {
      x.run(both, GetParam().name);
      const auto lse = values(x.lse);
      for (size_t i = 0; i < lse.size(); ++i) {
        const double top = std::max(lse_a[i], lse_b[i]);
        const double want =
            std::isnan(lse_a[i]) || std::isnan(lse_b[i]) ? std::nan("")
            : std::isinf(top)                            ? top
                              : top + std::log(std::exp(lse_a[i] - top) + std::exp(lse_b[i] - top));
        if (std::isnan(want) || std::isinf(want)) {
          ASSERT_TRUE(std::isnan(want) ? std::isnan(lse[i]) : lse[i] == want) << lse[i];
        } else {
          ASSERT_NEAR(lse[i], want, GetParam().tolerance);
        }
      }
    }
  }
}

// Keys and values of one's own: those of every stride-th token, which one sees with the last token
// of its block, are single keys under a mask that says so.
TEST_P(Laws, GivenKeysAreSeenOnceTheirTokensAre) {
  Rng g(29);
  for (int n = 0; n < 50; ++n) {
    Case x(g, test::random_problem(g));
    if (!x.p.cu_q.empty()) continue;
    const int block = int(test::pick(g, 1, 9)), stride = int(test::pick(g, 1, 5));
    Branch b;
    b.source = {SourceKind::given, block, stride, {}, {}, {}};
    const int64_t keys = source_keys(x.p, b);
    const Tensor k = make_tensor(DType::f32, {x.p.batch, x.p.kv_heads, keys, x.p.dk});
    const Tensor v = make_tensor(DType::f32, {x.p.batch, x.p.kv_heads, keys, x.p.dv});
    auto mask = std::make_shared<BitMask>();
    mask->nq = x.p.nq, mask->nk = x.p.nk;
    mask->words.assign(size_t(x.p.nq * mask->words_per_row()), 0);
    for (int64_t j = 0; j < keys && j * stride + block <= x.p.nk; ++j) {
      for (int64_t bh = 0; bh < x.p.batch * x.p.kv_heads; ++bh) {
        const int64_t bb = bh / x.p.kv_heads, h = bh % x.p.kv_heads;
        write_row(k.view, bb, h, j, test::row(x.k, bb, h, j * stride).data());
        write_row(v.view, bb, h, j, test::row(x.v, bb, h, j * stride).data());
      }
      for (int64_t i = std::max<int64_t>(0, j * stride + block - 1 - x.p.offset); i < x.p.nq; ++i)
        mask->words[size_t(i * mask->words_per_row() + (j * stride >> 6))] |= 1ull
                                                                              << (j * stride & 63);
    }
    x.run(Plan::all(x.p).given(block, stride, k, v).causal(), GetParam().name);
    const auto out = values(x.out), lse = values(x.lse);
    x.run(Plan::all(x.p).mask(mask), GetParam().name);
    const auto out2 = values(x.out), lse2 = values(x.lse);
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], out2[i], GetParam().tolerance);
    for (size_t i = 0; i < lse.size(); ++i)
      if (lse[i] != lse2[i]) {
        ASSERT_NEAR(lse[i], lse2[i], GetParam().tolerance);
      }
  }
}

TEST_P(Laws, PooledKeysAreMeansThatWeighTheirTokens) {
  Rng g(23);
  for (int n = 0; n < 50; ++n) {
    Case x(g, test::random_problem(g));
    const int block = int(test::pick(g, 1, 9));
    x.run(Plan::all(x.p).pooled(block), GetParam().name);
    const auto out = values(x.out), lse = values(x.lse);
    // Equal keys and values inside a block: pooling changes nothing.
    for (Tensor* t : {&x.k, &x.v})
      for (int64_t b = 0; b < x.p.batch; ++b)
        for (int64_t h = 0; h < x.p.kv_heads; ++h)
          for (int64_t j = 0; j < x.p.nk; ++j) {
            std::vector<double> row(size_t(t->view.size[3])), sum(row.size(), 0);
            const int64_t first = j / block * block, last = std::min(first + block, x.p.nk);
            if (j != first) continue;
            for (int64_t s = first; s < last; ++s) {
              read_row(t->view, b, h, s, row.data());
              for (size_t c = 0; c < row.size(); ++c) sum[c] += row[c] / double(last - first);
            }
            for (int64_t s = first; s < last; ++s) write_row(t->view, b, h, s, sum.data());
          }
    x.run(Plan::all(x.p), GetParam().name);
    const auto out2 = values(x.out), lse2 = values(x.lse);
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], out2[i], 2e-5);
    for (size_t i = 0; i < lse.size(); ++i) ASSERT_NEAR(lse[i], lse2[i], 2e-5);
  }
}

TEST_P(Laws, SinkIsAKeyWithoutAValue) {
  Rng g(24);
  for (int n = 0; n < 50; ++n) {
    Case x(g, test::random_problem(g));
    const Plan plain = Plan::all(x.p).causal();
    x.run(plain, GetParam().name);
    const auto out = values(x.out), lse = values(x.lse);
    Norm norm;
    norm.kind = NormKind::softmax_sink;
    for (int64_t h = 0; h < x.p.heads; ++h) norm.sink.push_back(h == 0 ? -kInf : float(h) - 1);
    x.run(Plan(plain).norm(norm), GetParam().name);
    const auto out2 = values(x.out), lse2 = values(x.lse);
    for (size_t row = 0; row < lse.size(); ++row) {
      const double a = norm.sink[row / size_t(x.p.nq) % size_t(x.p.heads)];
      const double share = lse[row] == -kInf ? 0 : 1 / (1 + std::exp(a - lse[row]));
      const double joint = lse[row] == -kInf ? a : lse[row] + std::log1p(std::exp(a - lse[row]));
      if (joint != lse2[row]) {
        ASSERT_NEAR(lse2[row], joint, GetParam().tolerance);
      }
      for (int64_t c = 0; c < x.p.dv; ++c) {
        const size_t e = row * size_t(x.p.dv) + size_t(c);
        ASSERT_NEAR(out2[e], share * out[e], GetParam().tolerance);
      }
    }
  }
}

TEST_P(Laws, SigmoidIsAdditiveOverKeys) {
  Rng g(25);
  Case x(g, test::random_problem(g));
  Norm norm;
  norm.kind = NormKind::sigmoid;
  norm.shift = -1.5f;
  x.run(Plan::band(x.p, 4, -1).norm(norm), GetParam().name);
  const auto near = values(x.out);
  TileBits all(1, 1, x.p.nq, x.p.nk);
  all.fill(true);
  const BitMask inside = expand(Plan::band(x.p, 4, -1), 0);
  TileBits far(1, 1, x.p.nq, x.p.nk);
  for (int64_t i = 0; i < x.p.nq; ++i)
    for (int64_t j = 0; j < x.p.nk; ++j) far.set(0, 0, i, j, !inside.get(0, 0, i, j));
  x.run(Plan::tiles(x.p, 1, 1, far).norm(norm), GetParam().name);
  const auto rest = values(x.out);
  x.run(Plan::all(x.p).norm(norm), GetParam().name);
  const auto whole = values(x.out);
  for (size_t i = 0; i < whole.size(); ++i)
    ASSERT_NEAR(whole[i], near[i] + rest[i], 70 * GetParam().tolerance);
}

TEST(Ref, ColumnMassSumsToTheQueries) {
  Rng g(26);
  Case x(g, test::random_problem(g));
  Tensor mass = make_tensor(DType::f64, {x.p.batch, x.p.heads, 1, x.p.nk});
  RunOptions o;
  o.threads = 2;
  attend(Plan::all(x.p), x.q.view, x.k.view, x.v.view, {x.out.view, {}, mass.view}, o);
  const auto m = values(mass);
  for (int64_t bh = 0; bh < x.p.batch * x.p.heads; ++bh) {
    double sum = 0;
    for (int64_t j = 0; j < x.p.nk; ++j) sum += m[size_t(bh * x.p.nk + j)];
    EXPECT_NEAR(sum, double(x.p.nq), 1e-9);
  }
}

TEST(Attend, RefusesWithOneLineThatNamesWhatCame) {
  Rng g(27);
  Case x(g, test::random_problem(g));
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const Plan plan = Plan::all(x.p);
  EXPECT_NE(message([&] { x.run(plan, "warp"); }).find("no implementation 'warp'"),
            std::string::npos);
  Problem other = x.p;
  other.nk += 1;
  EXPECT_NE(message([&] { x.run(Plan::all(other), ""); }).find("the views are"), std::string::npos);
  Case y = x;
  y.out = make_tensor(DType::f32, {1, 1, 1, 1});
  EXPECT_NE(message([&] { y.run(plan, ""); }).find("out is f32[1,1,1,1]"), std::string::npos);
  RunOptions o;
  o.threads = -1;
  EXPECT_NE(message([&] {
              attend(plan, x.q.view, x.k.view, x.v.view, {x.out.view, {}, {}}, o);
            }).find("threads"),
            std::string::npos);
  o.threads = 1;
  o.strict = true;
  Tensor mass = make_tensor(DType::f64, {x.p.batch, x.p.heads, 1, x.p.nk});
  EXPECT_NE(message([&] {
              attend(plan, x.q.view, x.k.view, x.v.view, {x.out.view, {}, mass.view}, o);
            }).find("would fall back to ref"),
            std::string::npos);
}

}  // namespace
}  // namespace regard
