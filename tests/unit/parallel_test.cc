// Threads: more of them than processors, several callers at once, callers inside bodies, after a
// fork. The thread sanitizer (make test-tsan) watches the same tests.
#include "core/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "random_plan.h"
#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard {
namespace {

using test::random_tensor;
using test::Rng;

// Both teams where the build has both.
class Teams : public testing::TestWithParam<Team> {
 protected:
  void SetUp() override {
    if (GetParam() == Team::openmp && !has_openmp()) GTEST_SKIP() << "built without OpenMP";
    use_team(GetParam());
  }
  void TearDown() override { use_team(Team::own); }
};
INSTANTIATE_TEST_SUITE_P(, Teams, testing::Values(Team::own, Team::openmp),
                         [](const auto& p) { return p.param == Team::own ? "Own" : "OpenMP"; });

void run_all(int64_t n, int threads) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
  std::vector<std::atomic<int>> busy(static_cast<size_t>(threads));
  parallel_for(n, threads, [&](int64_t i, int worker) {
    ASSERT_LT(worker, threads);
    EXPECT_EQ(busy[size_t(worker)]++, 0) << "two threads with one number";
    ++seen[size_t(i)];
    --busy[size_t(worker)];
  });
  for (const auto& s : seen) ASSERT_EQ(s, 1);
}

TEST_P(Teams, EveryItemOnce) {
  const int many = 3 * processors() + 5;
  for (int threads : {1, 2, 3, many})
    for (int64_t n : {0, 1, 2, 7, 1000}) run_all(n, threads);
}

TEST_P(Teams, FirstFailureReachesTheCaller) {
  for (int threads : {1, 2, 3 * processors()}) {
    std::atomic<int> done{0};
    EXPECT_THROW(parallel_for(1'000'000, threads,
                              [&](int64_t i, int) {
                                ++done;
                                if (i == 37) throw Error("item 37");
                              }),
                 Error);
    EXPECT_LT(done, 1'000'000) << "a failure stops the rest";
  }
}

TEST_P(Teams, BodiesMayCall) {
  std::atomic<int64_t> sum{0};
  parallel_for(6, 3, [&](int64_t i, int) {
    parallel_for(5, 2, [&](int64_t j, int) { sum += 10 * i + j; });
  });
  EXPECT_EQ(sum, 10 * 15 * 5 + 6 * 10);
}

TEST_P(Teams, ManyCallersAtOnce) {
  std::vector<std::thread> callers;
  for (int c = 0; c < 6; ++c)
    callers.emplace_back([c] {
      for (int round = 0; round < 50; ++round) run_all(20 + c, 2 + c % 3);
    });
  for (std::thread& t : callers) t.join();
}

// What a caller wrote before is seen by helpers, and what they wrote by the caller after.
TEST_P(Teams, MemoryIsHandedOver) {
  std::vector<int64_t> data(300);
  for (int64_t round = 1; round <= 200; ++round) {
    for (int64_t& x : data) x = round;
    parallel_for(300, 4, [&](int64_t i, int) { data[size_t(i)] += i; });
    for (int64_t i = 0; i < 300; ++i) ASSERT_EQ(data[size_t(i)], round + i);
  }
}

TEST(Threads, AChildProcessWorksAlone) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer does not follow a fork with threads";
#endif
  parallel_for(100, 2, [](int64_t, int) {});
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> done{0};
    parallel_for(100, 2, [&](int64_t, int) { ++done; });
    _exit(done == 100 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

struct Call {
  Problem p;
  Tensor q, k, v;
  Plan plan;

  Call(uint64_t seed, int64_t heads, int64_t kv, int64_t nq, int64_t nk) {
    Rng g(seed);
    p.heads = heads, p.kv_heads = kv, p.nq = nq, p.nk = nk, p.dk = p.dv = 64;
    p.scale = 0.125f, p.offset = nk - nq;
    q = random_tensor(g, {1, heads, nq, 64});
    k = random_tensor(g, {1, kv, nk, 64}, DType::f16);
    v = random_tensor(g, {1, kv, nk, 64}, DType::f16);
    plan = Plan::all(p).causal().lower();
  }

  std::vector<float> run(int threads) const {
    const Tensor out = make_tensor(DType::f32, {1, p.heads, p.nq, 64});
    RunOptions o;
    o.threads = threads;
    Out to;
    to.out = out.view;
    attend(plan, q.view, k.view, v.view, to, o);
    const float* x = static_cast<const float*>(out.view.data);
    return {x, x + out.view.numel()};
  }

  // A plan that is estimated: scores, selection and lowering have threads too.
  uint64_t plan_hash(int threads) const {
    Ctx ctx;
    ctx.threads = threads;
    const Inputs x{q.view, k.view, v.view, p, true, {}, {}};
    return hash(make_plan(parse_method("xattention:threshold=0.7,block=64,stride=8"), x, ctx));
  }
};

TEST_P(Teams, MoreThreadsThanProcessorsChangeNoBit) {
  const Call prefill(1, 4, 2, 200, 700), decode(2, 8, 2, 1, 3000);
  for (const Call* c : {&prefill, &decode}) {
    const std::vector<float> one = c->run(1);
    for (int threads : {2, processors() + 1, 4 * processors() + 3})
      EXPECT_EQ(one, c->run(threads)) << threads << " threads";
  }
  EXPECT_EQ(prefill.plan_hash(1), prefill.plan_hash(4 * processors() + 3));
}

TEST_P(Teams, CallsAtOnceChangeNoBit) {
  const Call prefill(3, 4, 2, 150, 500), decode(4, 8, 2, 1, 2000), other(5, 3, 1, 40, 40);
  std::vector<std::thread> callers;
  for (const Call* c : {&prefill, &decode, &other, &prefill})
    callers.emplace_back([c] {
      const std::vector<float> alone = c->run(1);
      const uint64_t plan = c->plan_hash(1);
      for (int round = 0; round < 8; ++round) {
        EXPECT_EQ(alone, c->run(2 + round % 3));
        if (c->p.nq > 1) {
          EXPECT_EQ(plan, c->plan_hash(3));
        }
      }
    });
  for (std::thread& t : callers) t.join();
}

}  // namespace
}  // namespace regard
