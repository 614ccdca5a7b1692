// A call of a kernel with fixed inputs on one thread, for callgrind: see instructions.py. A first
// call makes what a thread keeps; the second one is counted.
//   one_call CASE   prints the query-key pairs that the call reads
#include <cmath>
#include <cstdio>
#include <cstring>

#include "random_plan.h"
#include "regard/run.h"

namespace regard {
namespace {

struct Sizes {
  const char* name;
  int64_t heads, kv_heads, nq, nk, d;
  double density;  // of tiles of 64 x 64; 1: all pairs
};
constexpr Sizes kCases[] = {
    {"prefill_d64_f16", 3, 1, 256, 1024, 64, 1},
    {"decode_d128_f16", 8, 2, 1, 4096, 128, 1},
    {"tiles_d64_f16", 2, 1, 512, 1024, 64, 0.25},
};

struct Call {
  Plan plan;
  Tensor q, k, v;
  Out to;
  RunOptions options;
};

// Counting is on inside here: callgrind knows it by its name.
extern "C" __attribute__((noinline)) void counted_call(const Call& c) {
  attend(c.plan, c.q.view, c.k.view, c.v.view, c.to, c.options);
}

double run(const Sizes& s) {
  test::Rng g(1);
  Problem p;
  p.heads = s.heads, p.kv_heads = s.kv_heads, p.nq = s.nq, p.nk = s.nk, p.dk = p.dv = s.d;
  p.scale = 1 / std::sqrt(float(s.d)), p.offset = s.nk - s.nq;
  const Tensor q = test::random_tensor(g, {1, s.heads, s.nq, s.d});
  const Tensor k = test::random_tensor(g, {1, s.kv_heads, s.nk, s.d}, DType::f16);
  const Tensor v = test::random_tensor(g, {1, s.kv_heads, s.nk, s.d}, DType::f16);
  const Tensor out = make_tensor(DType::f32, {1, s.heads, s.nq, s.d});
  Plan plan = Plan::all(p);
  if (s.density < 1) {
    const TileBits bits = test::random_bits(g, p, p.nk, 64, 64, s.density);
    plan = Plan::tiles(p, 64, 64, bits);
  }
  plan.causal().lower();
  Call call{plan, q, k, v, {}, {}};
  call.to.out = out.view;
  call.options.impl = "cpu";
  call.options.threads = 1;
  attend(plan, q.view, k.view, v.view, call.to, call.options);
  counted_call(call);
  return cost(plan).pairs;
}

}  // namespace
}  // namespace regard

int main(int count, char** words) {
  for (const regard::Sizes& s : regard::kCases)
    if (count == 2 && !std::strcmp(words[1], s.name)) {
      std::printf("%.0f\n", regard::run(s));
      return 0;
    }
  std::fprintf(stderr, "one_call: accepted:");
  for (const regard::Sizes& s : regard::kCases) std::fprintf(stderr, " %s", s.name);
  std::fprintf(stderr, "\n");
  return 1;
}
