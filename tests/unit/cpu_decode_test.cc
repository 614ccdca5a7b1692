// The CPU kernels at decode: row tiles of few rows, which read K and V where they lie. The same
// body on every instruction set.
#include <gtest/gtest.h>

#include "cpu/cpu.h"
#include "unit/cpu_check.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,  DType::q4_0,
                            DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl};

class Decode : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { cpu::force_target(GetParam()); }
  void TearDown() override { cpu::force_target(""); }
  Rng g{11};
};
INSTANTIATE_TEST_SUITE_P(Targets, Decode, testing::ValuesIn(cpu::targets()),
                         [](const auto& i) { return i.param; });

TEST_P(Decode, RowsAndKeys) {
  for (int64_t rows = 1; rows <= 17; ++rows)  // 17: the packed kernel
    for (int64_t nk : {1, 15, 16, 17, 31, 33, 63, 64, 65, 131}) {
      const Problem group = problem(rows, 1, 1, nk, 32, 48);
      check(Plan::all(group).causal(), Qkv(g, group, DType::f16, DType::bf16));
      const Problem queries = problem(1, 1, rows, nk, 16, 21);
      check(Plan::all(queries).causal(), Qkv(g, queries, DType::bf16, DType::f16));
    }
}

TEST_P(Decode, HeadSizes) {
  for (int64_t d : {1, 7, 8, 16, 24, 40, 64, 72, 80, 96, 128, 136, 256, 320, 576})
    for (int64_t heads : {1, 2, 3, 4, 7}) {
      const Problem p = problem(heads, 1, 1, 77, d, d);
      check(Plan::all(p), Qkv(g, p, DType::f16, DType::f16));
    }
}

TEST_P(Decode, Types) {
  for (DType kt : kTypes)
    for (DType vt : kTypes)
      for (int64_t heads : {1, 4, 6}) {
        const Problem p = problem(heads, 1, 2, 83, 64, 96);
        check(Plan::all(p).causal(), Qkv(g, p, kt, vt));
      }
}

Plan random_columns(Rng& g, const Problem& p, int bq, int64_t most) {
  TileBits bits(1, p.kv_heads, (p.nq + bq - 1) / bq, p.nk);
  for (int64_t h = 0; h < bits.heads; ++h)
    for (int64_t r = 0; r < bits.rows; ++r)
      for (int64_t n = 0; n < most; ++n) bits.set(0, h, r, pick(g, 0, p.nk - 1), true);
  return Plan::columns(p, *Plan::tiles(p, bq, 1, bits).branches[0].cover.list);
}

TEST_P(Decode, ColumnsBandsAndTiles) {
  for (int64_t keys : {1, 15, 16, 17, 40, 64, 65, 130})
    for (DType t : {DType::f16, DType::q8_0, DType::q4_1})
      for (int64_t nq : {1, 3}) {
        const Problem p = problem(4, 2, nq, 211, 32, 64);
        const Qkv x(g, p, t, t);
        for (const char* numeric : {"f32", "int16"}) {
          const bool exact = numeric[0] == 'f';
          Plan columns = random_columns(g, p, int(nq), keys).causal();
          if (exact) check(columns, x, DType::f32, 2);
          const Result want = run("ref", columns, x.q.view, x.k.view, x.v.view, DType::f64);
          const Result got =
              run("cpu", columns.numeric(numeric), x.q.view, x.k.view, x.v.view, DType::f32);
          for (int64_t h = 0; h < 4; ++h)
            for (int64_t i = 0; i < nq; ++i)
              for (int64_t c = 0; c < 64; ++c)
                ASSERT_NEAR(element(got.out, 0, h, i, c), element(want.out, 0, h, i, c), 2e-3)
                    << numeric << ' ' << info(t).name;
        }
        check(Plan::band(p, keys, 0, 3), x, DType::f32, 2);
        TileBits bits(1, 1, 1, 14);
        for (int64_t c = 0; c < 14; ++c) bits.set(0, 0, 0, c, coin(g));
        check(Plan::tiles(p, 3, 16, bits).causal(), x);
      }
}

TEST_P(Decode, ScoresNormsAndMasks) {
  for (int kind = 0; kind < 16; ++kind)
    for (NormKind norm : {NormKind::softmax, NormKind::softmax_sink, NormKind::sigmoid})
      for (DType t : {DType::bf16, DType::q5_0}) {
        const Problem p = problem(4, 2, 5, 147, 32, 32, 2);
        Norm n;
        n.kind = norm;
        if (norm == NormKind::softmax_sink) n.sink = {0.5f, -2.0f, 4.0f, -kInfinity};
        n.shift = norm == NormKind::sigmoid ? -2.0f : 0.0f;
        SCOPED_TRACE(kind * 10 + int(norm));
        const Qkv x(g, p, t, t);
        const Score s = random_score(g, p, p.nk, kind);
        check(Plan::all(p).causal().score(s).norm(n), x, DType::f32, 3);
        check(Plan::all(p).mask(random_mask(g, p, p.nk)).score(s).norm(n), x);
      }
}

TEST_P(Decode, RowsWithoutKeysAndHugeScores) {
  const Problem late = problem(2, 1, 8, 3, 16, 16);  // the first five queries see nothing
  check(Plan::all(late).causal(), Qkv(g, late));
  for (float scale : {1e4f, 1e30f, 1e-6f, 0.0f, -3.0f}) {
    Problem p = problem(3, 1, 2, 140, 32, 32);
    p.scale = scale;
    check(Plan::all(p).causal(), Qkv(g, p));
    const Qkv x(g, p, DType::q8_0, DType::q8_0);
    check(Plan::all(p).causal(), x);
    if (scale >= 1e4f) continue;  // errors of a score are errors of its exponent
    const Result want = run("ref", Plan::all(p), x.q.view, x.k.view, x.v.view, DType::f64);
    const Result got = run("cpu", Plan::all(p).numeric("int16"), x.q.view, x.k.view, x.v.view);
    for (int64_t h = 0; h < 3; ++h)
      for (int64_t c = 0; c < 32; ++c)
        EXPECT_NEAR(element(got.out, 0, h, 1, c), element(want.out, 0, h, 1, c), 2e-3);
  }
}

// A pair that the plan forbids touches nothing, whatever its value holds.
TEST_P(Decode, PoisonStaysWhereItIsRead) {
  for (float bad : {std::nanf(""), kInfinity, -kInfinity})
    for (int64_t at : {0, 60, 100, 149}) {
      const Problem p = problem(2, 1, 4, 150, 16, 16);
      for (int which = 0; which < 3; ++which) {
        Qkv t(g, p);
        if (which == 0) cell(t.q, 0, 1, 2, 3) = bad;
        if (which == 1) cell(t.k, 0, 0, at, 2) = bad;
        if (which == 2) cell(t.v, 0, 0, at, 7) = bad;
        SCOPED_TRACE(testing::Message() << bad << ' ' << at << ' ' << which);
        check(Plan::all(p).causal(), t);
        check(Plan::band(p, 12, 0, 3), t);
        check(random_columns(g, p, 4, 40).causal(), t);
        check(Plan::all(p).mask(random_mask(g, p, p.nk)), t);
      }
    }
}

// The same in the steps of quantised blocks: both arithmetics turn to the packed kernel.
TEST_P(Decode, PoisonedSteps) {
  for (uint16_t bad : {0x7e00, 0x7c00, 0xfc00})
    for (int64_t at : {0, 70, 149})
      for (int which = 0; which < 2; ++which)
        for (const char* numeric : {"f32", "int16"}) {
          const Problem p = problem(2, 1, 4, 150, 32, 64);
          Qkv t(g, p, DType::q8_0, DType::q4_0);
          std::memcpy((which ? t.v : t.k).view.at(0, 0, at), &bad, 2);
          const Plan plan = Plan::band(p, 12, 0, 3).numeric(numeric);
          SCOPED_TRACE(testing::Message() << bad << ' ' << at << ' ' << which << numeric);
          const Result got = run("cpu", plan, t.q.view, t.k.view, t.v.view);
          const Result want = run("ref", plan, t.q.view, t.k.view, t.v.view, DType::f64);
          for (int64_t h = 0; h < 2; ++h)
            for (int64_t i = 0; i < 4; ++i)
              for (int64_t c = 0; c < 64; ++c) {
                const double a = element(got.out, 0, h, i, c), b = element(want.out, 0, h, i, c);
                EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) < 2e-3);
              }
        }
}

// q rounded as ggml rounds it for a quantised K: 8 bits and a scale for every 32 channels.
Tensor rounded_to_8_bits(const Tensor& q) {
  Tensor out = make_tensor(DType::f32, q.view.size);
  for (int64_t h = 0; h < q.view.size[1]; ++h)
    for (int64_t i = 0; i < q.view.size[2]; ++i)
      for (int64_t b = 0; b < q.view.size[3]; b += 32) {
        const float* from = reinterpret_cast<const float*>(q.view.at(0, h, i)) + b;
        float* to = reinterpret_cast<float*>(out.view.at(0, h, i)) + b;
        float most = 0;
        for (int c = 0; c < 32; ++c) most = std::max(most, std::abs(from[c]));
        for (int c = 0; c < 32; ++c) to[c] = std::round(from[c] * 127 / most) * most / 127;
      }
  return out;
}

// int16 errs much less than exact arithmetic does on queries rounded to 8 bits, which is where
// ggml's own kernel starts from.
TEST_P(Decode, Int16IsFarMoreAccurateThan8BitQueries) {
  for (DType kt : kTypes)
    for (DType vt : {DType::q8_0, DType::q4_1, DType::iq4_nl})
      for (int64_t heads : {1, 2, 3, 4, 5, 8})
        for (int64_t nk : {65, 203}) {
          if (info(kt).block == 1) continue;
          const Problem p = problem(heads, 1, 2, nk, 64, 96);
          const Qkv t(g, p, kt, vt);
          const Plan plan = Plan::all(p).causal();
          const auto ref = [&](const Tensor& q) {
            return run("ref", plan, q.view, t.k.view, t.v.view, DType::f64);
          };
          const Result want = ref(t.q), coarse = ref(rounded_to_8_bits(t.q));
          const Result got = run("cpu", Plan(plan).numeric("int16"), t.q.view, t.k.view, t.v.view);
          double error = 0, error8 = 0;
          for (int64_t h = 0; h < heads; ++h)
            for (int64_t i = 0; i < 2; ++i)
              for (int64_t c = 0; c < 96; ++c) {
                const double x = element(want.out, 0, h, i, c);
                error = std::max(error, std::abs(element(got.out, 0, h, i, c) - x));
                error8 = std::max(error8, std::abs(element(coarse.out, 0, h, i, c) - x));
              }
          EXPECT_LT(error, error8 / 20) << info(kt).name << ' ' << info(vt).name << ' ' << heads;
        }
}

TEST_P(Decode, ThreadsChangeNoBit) {
  const int64_t nk = GetParam() == "SCALAR" ? 1500 : 5000;
  for (const char* numeric : {"f32", "int16"})
    for (int64_t nq : {1, 4}) {
      const Problem p = problem(8, 2, nq, nk, 64, 64);
      const Qkv t(g, p, DType::q8_0, nq == 1 ? DType::q8_0 : DType::f16);
      for (const Plan& base : {Plan::all(p).causal(), random_columns(g, p, int(nq), nk / 2)}) {
        const Plan plan = Plan(base).numeric(numeric);
        const Result one = run("cpu", plan, t.q.view, t.k.view, t.v.view, DType::f32, 1);
        for (int threads : {2, 3, 8}) {
          const Result many = run("cpu", plan, t.q.view, t.k.view, t.v.view, DType::f32, threads);
          EXPECT_EQ(std::memcmp(one.out.view.data, many.out.view.data, one.out.view.numel() * 4),
                    0);
          EXPECT_EQ(std::memcmp(one.lse.view.data, many.lse.view.data, one.lse.view.numel() * 4),
                    0);
        }
      }
    }
}

// Rows with gaps at odd addresses, heads of a token side by side, the tail of memory just behind.
TEST_P(Decode, Strides) {
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0}) {
    const int64_t heads = 3, nk = 70, d = 64;
    const Problem p = problem(6, heads, 2, nk, d, d);
    const Qkv dense(g, p, type, type);
    const int64_t row = d / info(type).block * info(type).bytes, token = heads * row + 5;
    std::vector<char> mem[2];
    View views[2] = {dense.k.view, dense.v.view};
    for (int n = 0; n < 2; ++n) {
      View& v = views[n];
      mem[n].resize(size_t(nk * token - 5 + 3));
      View to{mem[n].data() + 3, type, Device::cpu, v.size, v.stride};
      to.stride[1] = row, to.stride[2] = token, to.stride[0] = 0;
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t j = 0; j < nk; ++j) std::memcpy(to.at(0, h, j), v.at(0, h, j), size_t(row));
      v = to;
    }
    for (const char* numeric : {"f32", "int16"}) {
      const Plan plan = Plan::all(p).causal().numeric(numeric);
      const Result want = run("cpu", plan, dense.q.view, dense.k.view, dense.v.view);
      const Result got = run("cpu", plan, dense.q.view, views[0], views[1]);
      EXPECT_EQ(std::memcmp(want.out.view.data, got.out.view.data, want.out.view.numel() * 4), 0);
    }
  }
}

}  // namespace
}  // namespace regard
