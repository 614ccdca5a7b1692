// What attend() allocates beside its inputs, plan and output: at most 64 MiB at 128K tokens. The
// process's peak of resident memory says so, which no allocator escapes.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>

#include "random_plan.h"
#include "regard/run.h"

namespace regard {
namespace {

constexpr int64_t kTokens = 128 << 10;
constexpr double kMiB = 1 << 20, kLimit = 64 * kMiB;

double status_bytes(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  return 0;
}

// Growth of the peak over what was resident before, in bytes.
template <class F>
double growth(const F& work) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;  // sets the peak to what is resident now
  const double before = status_bytes("VmRSS");
  work();
  return std::max(0.0, status_bytes("VmHWM") - before);
}

struct Inputs {
  Tensor q, k, v, out, lse;
  Problem p;
  Inputs(int64_t heads, int64_t kv, int64_t nq, int64_t d, int64_t nk = kTokens) {
    p.heads = heads, p.kv_heads = kv, p.nq = nq, p.nk = nk, p.dk = p.dv = d;
    p.scale = 1 / std::sqrt(float(d)), p.offset = p.nk - p.nq;
    q = filled(DType::f32, {1, heads, nq, d});
    k = filled(DType::f16, {1, kv, nk, d});
    v = filled(DType::f16, {1, kv, nk, d});
    out = filled(DType::f32, {1, heads, nq, d});
    lse = filled(DType::f32, {1, heads, nq, 1});
  }
  // Every page is touched, so that none of it counts later. Values: small and all alike.
  static Tensor filled(DType t, std::array<int64_t, 4> size) {
    Tensor x = make_tensor(t, size);
    std::memset(x.view.data, 0x2c, size_t(x.view.numel() * info(t).bytes));
    return x;
  }
  double run(const Plan& plan, int threads) const {  // bytes
    RunOptions o;
    o.impl = "cpu";
    o.threads = threads;
    Out to;
    to.out = out.view;
    to.lse = lse.view;
    return growth([&] { attend(plan, q.view, k.view, v.view, to, o); });
  }
};

TEST(ExtraMemory, TheMeterSees) {
  EXPECT_GT(growth([] {
              const Tensor x = Inputs::filled(DType::f32, {1, 1, 1, 16 << 20});
              ASSERT_TRUE(x);
            }),
            60 * kMiB);
}

TEST(ExtraMemory, PrefillOf128KTokensThroughABand) {
  const Inputs x(4, 2, kTokens, 64);
  EXPECT_LE(x.run(Plan::band(x.p, 511, 0, 4).lower(), 2), kLimit);
}

TEST(ExtraMemory, PrefillOf128KTokensThroughTiles) {
  const Inputs x(2, 1, kTokens, 128);
  TileBits bits(1, 2, kTokens / 128, kTokens / 128);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t r = 0; r < bits.rows; ++r)
      for (int64_t c = 0; c <= r; ++c) bits.set(0, h, r, c, c == 0 || c > r - 2 || c == r / 2);
  EXPECT_LE(x.run(Plan::tiles(x.p, 128, 128, bits).causal().lower(), 2), kLimit);
}

// All pairs of 128K tokens take minutes, so both sides are long in turn. What a call holds grows
// with the queries (row tiles, ranges) and, up to a bound, with the keys (pieces of few row tiles),
// but never with their product: even one bit a pair would be 32 MiB in the first call and 16 MiB in
// the second.
TEST(ExtraMemory, DensePrefillHoldsNothingOfBothSides) {
  const Inputs many_queries(1, 1, kTokens, 64, 2048), many_keys(2, 1, 1024, 64);
  const double a = many_queries.run(Plan::all(many_queries.p).lower(), 2);
  const double b = many_keys.run(Plan::all(many_keys.p).causal().lower(), 2);
  EXPECT_LE(a, 12 * kMiB);
  EXPECT_LE(b, 12 * kMiB);
}

// Decode of a long cache is cut over keys; the pieces' Partials are all that it keeps.
TEST(ExtraMemory, DecodeAt128KTokens) {
  const Inputs x(8, 2, 1, 128);
  EXPECT_LE(x.run(Plan::all(x.p).causal().lower(), 2), 16 * kMiB);
}

}  // namespace
}  // namespace regard
