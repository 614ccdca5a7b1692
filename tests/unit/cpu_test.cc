// The CPU kernels against the reference, the same body on every instruction set and in every
// arithmetic that this machine has.
#include "cpu/cpu.h"

#include <gtest/gtest.h>

#include "cpu/isa.h"
#include "regard/status.h"
#include "unit/cpu_check.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

struct Machine {
  std::string target, numeric;
};

std::vector<Machine> machines() {
  std::vector<Machine> all;
  for (const std::string& t : cpu::targets()) {
    cpu::force_target(t);
    for (const std::string& n : numerics())
      if (cpu::numeric_refusal(cpu::parse_numeric(n)).empty()) all.push_back({t, n});
  }
  cpu::force_target("");
  return all;
}

void PrintTo(const Machine& m, std::ostream* out) { *out << m.target << " " << m.numeric; }

std::string numeric;  // of the test that runs

Plan in_numeric(Plan plan) { return plan.numeric(numeric); }

class Cpu : public testing::TestWithParam<Machine> {
 protected:
  void SetUp() override {
    cpu::force_target(GetParam().target);
    ASSERT_EQ(cpu::target(), GetParam().target);
    numeric = GetParam().numeric;
  }
  void TearDown() override { cpu::force_target(""); }
  // The plain scalar target runs the same cases, fewer of the large ones.
  bool small() const { return GetParam().target == "SCALAR"; }
  Rng g{7};
};
INSTANTIATE_TEST_SUITE_P(Targets, Cpu, testing::ValuesIn(machines()),
                         [](const auto& i) { return i.param.target + "_" + i.param.numeric; });

void expect_right(const Plan& plan, const Qkv& t, DType out = DType::f32, int threads = 1) {
  check(in_numeric(plan), t.q.view, t.k.view, t.v.view, out, threads);
}

TEST_P(Cpu, TokenCountsAroundTiles) {
  for (int64_t nq : {1, 2, 3, 5, 11, 12, 13, 37})
    for (int64_t nk : {1, 15, 16, 17, 31, 63, 64, 65, 127, 128, 131}) {
      const Problem p = problem(3, 1, nq, nk, 19, 23);
      const Qkv t(g, p);
      expect_right(Plan::all(p), t);
      expect_right(Plan::all(p).causal(), t);
    }
}

TEST_P(Cpu, HeadSizes) {
  for (auto [dk, dv] : std::vector<std::pair<int, int>>{{1, 1},
                                                        {2, 3},
                                                        {7, 31},
                                                        {16, 16},
                                                        {33, 17},
                                                        {40, 40},
                                                        {64, 64},
                                                        {72, 80},
                                                        {96, 48},
                                                        {128, 128},
                                                        {256, 256},
                                                        {576, 512},
                                                        {17, 576}}) {
    const Problem p = problem(2, 1, 23, 71, dk, dv);
    expect_right(Plan::all(p).causal(), Qkv(g, p));
  }
}

TEST_P(Cpu, Groups) {
  for (int64_t heads : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32})
    for (int64_t nq : {1, 3}) {
      const Problem p = problem(heads, 1, nq, 97, 16, 16);
      expect_right(Plan::all(p).causal(), Qkv(g, p));
    }
  const Problem p = problem(250, 1, 2, 70, 8, 8);  // a group larger than a row tile
  expect_right(Plan::all(p).causal(), Qkv(g, p));
  const Problem b = problem(6, 3, 20, 70, 8, 8, 3);
  expect_right(Plan::all(b).causal(), Qkv(g, b));
}

TEST_P(Cpu, ManyRowTiles) {
  const Problem p = problem(4, 2, small() ? 70 : 301, small() ? 130 : 517, 24, 40, 2);
  const Qkv t(g, p);
  expect_right(Plan::all(p).causal(), t, DType::f32, 2);
  expect_right(Plan::band(p, 50, 0, 4), t, DType::f32, 2);
  expect_right(Plan::band(p, 20, 10, 100), t, DType::f32, 2);
}

TEST_P(Cpu, KeyAndValueTypes) {
  const DType types[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,  DType::q4_0,
                         DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl};
  for (DType kt : types)
    for (DType vt : types) {
      const Problem p = problem(4, 2, 9, 77, 64, 32);
      expect_right(Plan::all(p).causal(), Qkv(g, p, kt, vt));
    }
}

TEST_P(Cpu, QueryAndOutputTypes) {
  for (DType qt : {DType::f32, DType::f16, DType::bf16})
    for (DType ot : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
      const Problem p = problem(2, 1, 14, 77, 41, 37);
      expect_right(Plan::all(p).causal(), Qkv(g, p, DType::f16, DType::bf16, qt), ot);
    }
}

TEST_P(Cpu, RandomPlans) {
  for (int n = 0; n < 150; ++n) {
    Problem p = random_problem(g);
    const Plan plan = random_plan(g, p);
    SCOPED_TRACE(describe(plan));
    expect_right(plan, Qkv(g, p), DType::f32, int(pick(g, 1, 3)));
  }
}

TEST_P(Cpu, TilesAndColumns) {
  for (auto [bq, bk] : std::vector<std::pair<int, int>>{
           {64, 64}, {128, 128}, {32, 16}, {64, 24}, {13, 7}, {16, 1}, {1, 1}}) {
    const Problem p = problem(4, 2, small() ? 67 : 200, small() ? 150 : 333, 24, 16);
    const Qkv t(g, p);
    for (int64_t heads : {1, 2, 4}) {
      TileBits bits(1, heads, (p.nq + bq - 1) / bq, (p.nk + bk - 1) / bk);
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t r = 0; r < bits.rows; ++r)
          for (int64_t c = 0; c < bits.cols; ++c) bits.set(0, h, r, c, coin(g, r == 0 ? 0 : 0.3));
      expect_right(Plan::tiles(p, bq, bk, bits).causal(), t, DType::f32, 2);
      expect_right(Plan::tiles(p, bq, bk, bits).mask(random_mask(g, p, p.nk)), t);
    }
  }
}

TEST_P(Cpu, Segments) {
  Problem p = problem(2, 1, 50, 120, 16, 16);
  p.cu_q = {0, 7, 7, 30, 50};
  p.cu_k = {0, 30, 41, 60, 120};
  const Qkv t(g, p);
  expect_right(Plan::all(p).causal(), t);
  expect_right(Plan::band(p, 5, 0), t);
  Score alibi;
  alibi.alibi = {0.25f, 0.0625f};
  expect_right(Plan::all(p).causal().score(alibi), t);
}

TEST_P(Cpu, ScoresAndNorms) {
  for (int kind = 0; kind < 16; ++kind)
    for (NormKind norm : {NormKind::softmax, NormKind::softmax_sink, NormKind::sigmoid}) {
      const Problem p = problem(4, 2, 17, 83, 16, 16, 2);
      Norm n;
      n.kind = norm;
      if (norm == NormKind::softmax_sink) n.sink = {0.5f, -2.0f, 4.0f, -kInfinity};
      n.shift = norm == NormKind::sigmoid ? -2.0f : 0.0f;
      const Qkv t(g, p);
      SCOPED_TRACE(kind * 10 + int(norm));
      const Score s = random_score(g, p, p.nk, kind);
      expect_right(Plan::all(p).causal().score(s).norm(n), t);
      expect_right(Plan::band(p, 20, 0, 2).score(s).norm(n), t);
    }
}

TEST_P(Cpu, ScoresOnPooledAndGatheredKeys) {
  for (int kind = 0; kind < 16; ++kind) {
    const Problem p = problem(2, 1, 15, 100, 8, 8);
    const Qkv t(g, p);
    SCOPED_TRACE(kind);
    expect_right(Plan::all(p).pooled(7).causal().score(random_score(g, p, 15, kind & ~2)),
                 t);  // no alibi
    TileBits bits(1, 1, 3, p.nk);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < p.nk; ++c) bits.set(0, 0, r, c, coin(g, 0.6));
    const Plan tiles = Plan::tiles(p, 5, 1, bits);
    expect_right(Plan::columns(p, *tiles.branches[0].cover.list)
                     .causal()
                     .score(random_score(g, p, p.nk, kind)),
                 t);
  }
}

TEST_P(Cpu, RowsWithoutKeys) {
  Problem p = problem(2, 1, 40, 20, 8, 8);  // the first 20 queries see nothing
  const Qkv t(g, p);
  expect_right(Plan::all(p).causal(), t);
  const Result r = run("cpu", in_numeric(Plan::all(p).causal()), t.q.view, t.k.view, t.v.view);
  EXPECT_EQ(element(r.out, 0, 0, 0, 0), 0);
  EXPECT_EQ(element(r.lse, 0, 0, 0, 0), -kInfinity);
  auto mask = std::make_shared<BitMask>();
  mask->nq = p.nq, mask->nk = p.nk;
  mask->words.assign(size_t(p.nq), 0);
  mask->words[30] = 5;
  expect_right(Plan::all(p).mask(mask), t);
}

Tensor copy(const Tensor& t) {
  Tensor out = make_tensor(t.view.dtype, t.view.size);
  std::memcpy(out.view.data, t.view.data, size_t(t.view.numel()) * 4);
  return out;
}

// Whether an output row is one of the value rows (of one KV head), as far as bf16 tells.
bool is_a_value(const Tensor& v, const Tensor& out, int64_t h, int64_t i) {
  for (int64_t j = 0; j < v.view.size[2]; ++j) {
    bool same = true;
    for (int64_t c = 0; c < v.view.size[3]; ++c) {
      const double want = element(v, 0, 0, j, c);
      same &= std::abs(element(out, 0, h, i, c) - want) <= 0x1p-8 * std::abs(want);
    }
    if (same) return true;
  }
  return false;
}

TEST_P(Cpu, PoisonStaysWhereItIsRead) {
  const float nan = std::nanf("");
  for (float bad : {nan, kInfinity, -kInfinity}) {
    const Problem p = problem(2, 1, 40, 150, 16, 16);
    Qkv t(g, p);
    cell(t.v, 0, 0, 140, 7) = bad;  // read by causal rows from 30 on
    Qkv meant = t;                  // int8 has no level for an infinity: it counts as NaN
    meant.q = copy(t.q), meant.k = copy(t.k);
    const float level = numeric == "int8" ? nan : bad;
    cell(t.q, 0, 1, 5, 3) = bad, cell(meant.q, 0, 1, 5, 3) = level;
    cell(t.k, 0, 0, 130, 2) = bad, cell(meant.k, 0, 0, 130, 2) = level;  // by rows from 20 on
    SCOPED_TRACE(bad);
    // 16 queries of 2 heads: fewer rows would run in f32, whatever the numeric.
    TileBits bits(1, 1, 3, 10);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < 10; ++c) bits.set(0, 0, r, c, (r + c) % 2 == 0);
    for (Plan plan :
         {Plan::all(p).causal(), Plan::band(p, 12, 0, 3), Plan::tiles(p, 16, 16, bits).causal()}) {
      plan.numeric(numeric);
      judge(plan, meant.q.view, meant.k.view, meant.v.view,
            run("cpu", plan, t.q.view, t.k.view, t.v.view));
    }
  }
}

TEST_P(Cpu, HugeAndTinyScores) {
  for (float scale : {1e4f, 1e30f, 1e-6f, 0.0f, -3.0f}) {
    Problem p = problem(2, 1, 13, 140, 16, 16);
    p.scale = scale;
    SCOPED_TRACE(scale);
    const Qkv t(g, p);
    if (numeric == "int8" && scale >= 1e4f) {
      // Which of two close keys wins is decided by rounding: that some key does is what is left.
      const Result r = run("cpu", in_numeric(Plan::all(p)), t.q.view, t.k.view, t.v.view);
      for (int64_t h = 0; h < 2; ++h)
        for (int64_t i = 0; i < p.nq; ++i) EXPECT_TRUE(is_a_value(t.v, r.out, h, i));
      continue;
    }
    expect_right(Plan::all(p).causal(), t);
  }
}

// Views at odd byte offsets, with gaps, transposed, and repeated (stride 0).
TEST_P(Cpu, StridesAndAlignment) {
  const Problem p = problem(4, 2, 11, 90, 21, 19);
  const auto odd = [&](int64_t heads, int64_t n, int64_t d, DType type, std::vector<char>& mem) {
    const int64_t bytes = info(type).bytes, row = (d + 3) * bytes + 1;
    mem.assign(size_t(heads * n * row + 64), 0);
    View v{mem.data() + 3, type, Device::cpu, {1, heads, n, d}, {0, row, heads * row, bytes}};
    std::normal_distribution<double> normal;
    std::vector<double> x(static_cast<size_t>(d));
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        for (double& e : x) e = normal(g);
        write_row(v, 0, h, i, x.data());
      }
    return v;
  };
  for (DType type : {DType::f32, DType::f16, DType::bf16}) {
    std::vector<char> mq, mk, mv, mo;
    const View q = odd(4, 11, 21, type, mq), k = odd(2, 90, 21, type, mk);
    View v = odd(2, 90, 19, type, mv);
    check(in_numeric(Plan::all(p).causal()), q, k, v);
    v.stride[2] = 0;  // every key has the same value
    check(in_numeric(Plan::all(p).causal()), q, k, v);
    View out = odd(4, 11, 19, type, mo);
    const Result want = run("cpu", in_numeric(Plan::all(p).causal()), q, k, v, type);
    Out o;
    o.out = out;
    RunOptions options;
    options.impl = "cpu";
    attend(in_numeric(Plan::all(p).causal()), q, k, v, o, options);
    for (int64_t h = 0; h < 4; ++h)
      for (int64_t i = 0; i < 11; ++i)
        EXPECT_EQ(std::memcmp(out.at(0, h, i), want.out.view.at(0, h, i), 19 * info(type).bytes),
                  0);
  }
  // Channels far apart: [B, H, D, N] seen as [B, H, N, D].
  const Tensor kt = random_tensor(g, {1, 2, 21, 90}), qt = random_tensor(g, {1, 4, 21, 11});
  const Tensor v = random_tensor(g, {1, 2, 90, 19});
  const auto swap = [](View x) {
    std::swap(x.size[2], x.size[3]);
    std::swap(x.stride[2], x.stride[3]);
    return x;
  };
  check(in_numeric(Plan::all(p).causal()), swap(qt.view), swap(kt.view), v.view);
}

TEST_P(Cpu, ThreadsChangeNoBit) {
  const int64_t nk = small() ? 1500 : 6000;
  for (int64_t nq : {1, 5, 70}) {
    const Problem p = problem(6, 2, nq, nk, 32, 32);
    const Qkv t(g, p, DType::f16, DType::q8_0);
    const Plan plan = in_numeric(Plan::all(p).causal());
    const Result one = run("cpu", plan, t.q.view, t.k.view, t.v.view, DType::f32, 1);
    for (int threads : {2, 3, 8}) {
      const Result many = run("cpu", plan, t.q.view, t.k.view, t.v.view, DType::f32, threads);
      EXPECT_EQ(std::memcmp(one.out.view.data, many.out.view.data, one.out.view.numel() * 4), 0);
      EXPECT_EQ(std::memcmp(one.lse.view.data, many.lse.view.data, one.lse.view.numel() * 4), 0);
    }
    if (nq < 70) judge(plan, t.q.view, t.k.view, t.v.view, one);
  }
}

// Keys cut in pieces, each finished as a Partial and merged, against one pass.
TEST_P(Cpu, PartialsOfPiecesMergeToTheWhole) {
  const Problem p = problem(2, 1, 20, 200, 16, 16);
  const Qkv t(g, p);
  std::vector<Plan> pieces;
  for (int n = 0; n < 3; ++n) {
    TileBits bits(1, 1, 2, 25);
    for (int64_t r = 0; r < 2; ++r)
      for (int64_t c = n; c < 25; c += 3) bits.set(0, 0, r, c);
    pieces.push_back(Plan::tiles(p, 16, 8, bits).causal());
  }
  const Result got = run("cpu", in_numeric(Plan::same(pieces)), t.q.view, t.k.view, t.v.view);
  judge(in_numeric(Plan::all(p).causal()), t.q.view, t.k.view, t.v.view, got);
}

TEST(CpuTargets, ForcingNamesTheTargets) {
  EXPECT_EQ(cpu::targets().back(), "SCALAR");
  try {
    cpu::force_target("AVX9");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("SCALAR"), std::string::npos) << e.what();
  }
}

// What is named is what runs: bf16 and int8 differ from f32 and from each other, int8 most.
TEST(CpuNumeric, ErrorsAreOfTheirSize) {
  if (!cpu::numeric_refusal(cpu::Numeric::int8).empty()) GTEST_SKIP() << "no AVX-512 BF16 and VNNI";
  Rng g{3};
  const Problem p = problem(4, 2, 60, 700, 64, 64);
  for (DType type : {DType::f16, DType::q8_0}) {
    const Qkv t(g, p, type, type);
    const Plan plan = Plan::all(p).causal();
    const Result want = run("ref", plan, t.q.view, t.k.view, t.v.view, DType::f64);
    const auto error = [&](const char* name) {
      const Result r = run("cpu", Plan(plan).numeric(name), t.q.view, t.k.view, t.v.view);
      double sum = 0, all = 0;
      for (int64_t h = 0; h < 4; ++h)
        for (int64_t i = 0; i < p.nq; ++i)
          for (int64_t c = 0; c < p.dv; ++c) {
            const double x = element(want.out, 0, h, i, c), d = element(r.out, 0, h, i, c) - x;
            sum += d * d, all += x * x;
          }
      return std::sqrt(sum / all);
    };
    const double f32 = error("f32"), bf16 = error("bf16"), int8 = error("int8");
    EXPECT_LT(f32, 2e-6);
    EXPECT_GT(bf16, 100 * f32);
    EXPECT_LT(bf16, 6e-3);  // three roundings of 2^-9
    EXPECT_GT(int8, bf16);
    EXPECT_LT(int8, 12e-3);  // a level is 1 / 255 of a block's range
  }
}

TEST(CpuNumeric, DefaultsAreNoWorseThanGgmls) {
  const Problem prefill = problem(8, 2, 512, 4096, 64, 64), decode = problem(8, 2, 1, 4096, 64, 64);
  for (DType t : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(default_numeric(prefill, t), "f32");
    EXPECT_EQ(default_numeric(decode, t), "f32");
  }
  const bool bf16 = numeric_refusal("bf16").empty();
  EXPECT_EQ(default_numeric(prefill, DType::q8_0), bf16 ? "bf16" : "f32");
  EXPECT_EQ(default_numeric(decode, DType::q4_0), "int16");
  EXPECT_THROW(numeric_refusal("fp4"), Error);
}

TEST(CpuNumeric, TheInstructionSetIsNamed) {
  cpu::force_target("AVX2");
  const std::string why = cpu::numeric_refusal(cpu::Numeric::bf16);
  cpu::force_target("");
  if (cpu::has_dot()) {
    EXPECT_EQ(why, "numeric 'bf16' needs 512-bit vectors; the instruction set in use is AVX2");
  } else {
    EXPECT_NE(why.find("AVX-512"), std::string::npos) << why;
  }
  EXPECT_EQ(cpu::numeric_refusal(cpu::Numeric::f32), "");
}

TEST(CpuRefusal, NamesWhatCame) {
  const Problem p = problem(1, 1, 2, 3, 577, 8);
  Plan plan = Plan::all(p);
  const Tensor q = make_tensor(DType::f32, {1, 1, 2, 577}),
               k = make_tensor(DType::f32, {1, 1, 3, 577});
  const Tensor v = make_tensor(DType::f32, {1, 1, 3, 8}), o = make_tensor(DType::f32, {1, 1, 2, 8});
  Out out;
  out.out = o.view;
  EXPECT_NE(explain(plan, q.view, k.view, v.view, out)[2].refusal.find("576"), std::string::npos);
}

}  // namespace
}  // namespace regard
