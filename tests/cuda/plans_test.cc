// Plans that permute axes, share lists, map values, bring keys of their own, skip values or weigh
// by features, on the GPU: judged as those of attend_test.cc are.
#include <algorithm>
#include <cstring>

#include "check.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

class CudaPlans : public Cuda {
 protected:
  Tensor random_map(const Problem& p) {
    return random_tensor(g, {1, coin(g) ? 1 : p.kv_heads, p.dv + 1, p.dv}, DType::f32,
                         1 / std::sqrt(double(p.dv)));
  }
  TileBits some_tiles(const Problem& p, int64_t keys, int bq, int bk, double density) {
    TileBits bits = random_bits(g, p, keys, bq, bk, density);
    for (int64_t c = 0; c < bits.cols; ++c) bits.set(0, 0, 0, c, false);  // a row without keys
    return bits;
  }
  Plan given(const Plan& plan, int block, int stride) {
    const Problem& p = plan.problem;
    Plan out = plan;
    out.branches[0].source.block = block, out.branches[0].source.stride = stride;
    out.branches[0].source.kind = SourceKind::given;
    const int64_t n = source_keys(p, out.branches[0]);
    out.given(block, stride, random_tensor(g, {p.batch, p.kv_heads, n, p.dk}),
              random_tensor(g, {p.batch, p.kv_heads, n, p.dv}));
    return out;
  }
  Weight features(const Problem& p, WeightKind kind) {
    Weight w{kind, {}};
    if (kind == WeightKind::random) w.directions = random_tensor(g, {1, 1, pick(g, 1, 150), p.dk});
    return w;
  }
};
INSTANTIATE_TEST_SUITE_P(Each, CudaPlans, kEach, by_name);

Problem in_eights(Rng& g, int64_t tokens) {
  Problem p = random_problem(g, tokens);
  p.dk = 8 * pick(g, 1, 10), p.dv = 8 * pick(g, 1, 10);
  p.scale = 1 / std::sqrt(float(p.dk));
  return p;
}

TEST_P(CudaPlans, OrdersAndSharedLists) {
  for (int n = 0; n < 150; ++n) {
    Plan plan = random_plan(g, in_eights(g, n % 3 ? 70 : 300));
    if (coin(g)) random_sharing(g, &plan);
    random_order(g, &plan);
    SCOPED_TRACE(describe(plan));
    check(plan);
  }
}

TEST_P(CudaPlans, TilesUnderOrders) {
  for (int64_t d : {64, 128, 256})
    for (int64_t nq : {3, 130, 500})
      for (int64_t own : {1, 2, 4}) {
        const Problem p = problem(4, 2, nq, 500, d, d, 2);
        Order o;
        o.queries = random_permutation(g, 2, own == 1 ? 1 : 4, nq);
        o.keys = random_permutation(g, own == 4 ? 2 : 1, own, 500);
        Score s;
        if (own == 2) s.alibi = {0.5f, 0.25f, 0.125f, 0.0625f}, s.softcap = 5;
        if (own == 4) s.bias = random_tensor(g, {1, 4, nq, 500}, DType::f16);
        const int tile = nq == 130 ? 128 : 64;
        check(
            Plan::tiles(p, tile, 64, some_tiles(p, 500, tile, 64, 0.4)).causal().score(s).order(o));
        check(Plan::band(p, 40, 9).causal().order(o));
      }
}

// Tokens in clusters of very unequal size: the rows of a cluster stand side by side and share its
// list; some tokens are in none.
TEST_P(CudaPlans, ClustersShareAList) {
  for (int64_t d : {64, 128})
    for (int64_t clusters : {3, 40}) {
      const Problem p = problem(4, 2, 400, 400, d, d);
      auto order = std::make_shared<Permutation>();
      auto list = std::make_shared<IndexList>();
      order->heads = list->heads = 4, order->n = list->rows = list->cols = 400;
      list->bq = list->bk = 1, list->start = {0};
      for (int64_t h = 0; h < 4; ++h) {
        std::vector<std::vector<uint32_t>> of(size_t(clusters + 1));
        for (uint32_t i = 0; i < 400; ++i)
          of[size_t(pick(g, 0, pick(g, 0, clusters)))].push_back(i);
        for (size_t c = 0; c < of.size(); ++c) {
          for (uint32_t i : of[c]) {
            order->token.push_back(i), list->list_of.push_back(uint32_t(list->lists()));
            if (c > 0) list->index.push_back(i);
          }
          list->start.push_back(int64_t(list->index.size()));
        }
      }
      Plan plan = Plan::columns(p, ListRef(list));
      Order o;
      o.queries = order;
      check(plan.order(o));
      check(plan.causal());
    }
}

TEST_P(CudaPlans, SixteenBranches) {
  for (int64_t nq : {2, 70}) {
    const Problem p = problem(4, 2, nq, 700, 64, 64);
    Order o;
    o.queries = random_permutation(g, 1, 4, nq), o.keys = random_permutation(g, 1, 2, 700);
    std::vector<Plan> pieces;
    for (int n = 0; n < 16; ++n) {
      TileBits bits(1, 1, (nq + 15) / 16, 88);
      for (int64_t r = 0; r < bits.rows; ++r)
        for (int64_t c = n; c < 88; c += 16) bits.set(0, 0, r, c);
      pieces.push_back(Plan::tiles(p, 16, 8, bits).causal().order(o));
    }
    check(Plan::same(pieces));
    Norm sink;
    sink.kind = NormKind::softmax_sink, sink.sink = {1, -1, 3, 0};
    check(Plan::same(pieces).norm(sink));
    check(Plan::gated({pieces[0], Plan::band(p, 40, 0).norm(sink), Plan::all(p).pooled(8).causal(),
                       pieces[1], pieces[2]},
                      random_tensor(g, {1, 4, nq, 5})));
  }
}

TEST_P(CudaPlans, MappedValues) {
  for (int64_t d : {24, 128, 256})
    for (int64_t nq : {1, 3, 90}) {
      const Problem p = problem(4, 2, nq, 333, d, d, 2);
      const Inputs3 x = inputs(p);
      check(Plan::all(p).causal().value_map(random_map(p)), x);
      check(Plan::band(p, 50, 0, 4).value_map(random_map(p)), x);
      check(Plan::all(p).pooled(7).causal().value_map(random_map(p)), x);
      check(Plan::tiles(p, 32, 64, some_tiles(p, 333, 32, 64, 0.5)).value_map(random_map(p)), x);
      check(given(Plan::all(p).causal(), 32, 16).value_map(random_map(p)), x);
    }
}

TEST_P(CudaPlans, GivenKeys) {
  for (int64_t d : {24, 64, 128})
    for (int64_t nq : {1, 70, 300}) {
      const Problem p = problem(4, 2, nq, 300, d, d, 2);
      const Inputs3 x = inputs(p);
      check(given(Plan::all(p).causal(), 32, 16), x);
      check(given(Plan::all(p).causal().window({100, 0, 2}), 8, 8), x);
      check(given(Plan::all(p), 300, 400), x);
      Plan listed = given(Plan::all(p).causal(), 16, 4);
      const int64_t keys = source_keys(p, listed.branches[0]);
      TileBits bits(1, 1, (nq + 15) / 16, (keys + 7) / 8);
      for (int64_t r = 0; r < bits.rows; ++r)
        for (int64_t c = 0; c < bits.cols; ++c) bits.set(0, 0, r, c, coin(g));
      Problem fewer = p;
      fewer.nk = keys;
      listed.branches[0].cover = Plan::tiles(fewer, 16, 8, bits).branches[0].cover;
      check(listed, x);
      check(Plan::gated({given(Plan::all(p).causal(), 32, 16), Plan::band(p, 64, 0).causal()},
                        random_tensor(g, {2, 4, nq, 2})),
            x);
    }
}

// Log-weights that lie on the GPU, beside ln(tokens) of pooled keys.
TEST_P(CudaPlans, PooledKeysTakeLogWeightsOnTheDevice) {
  for (bool shared : {false, true}) {
    const Problem p = problem(4, 2, 33, 100, 64, 64, 2);
    const Inputs3 x = inputs(p);
    Score s;
    s.key_bias = random_tensor(g, {shared ? 1 : 2, shared ? 1 : 2, 1, 15});
    const Plan plan = Plan::all(p).pooled(7).causal().score(s);
    DeviceRun d(plan, x.q, x.k, x.v, DType::f32);
    Plan there = plan;
    there.branches[0].score.key_bias.view = d.up(s.key_bias);
    if (!takes(there, d.t)) continue;
    attend(there, d.t, options());
    judge(plan, x, d.out(), d.lse());
  }
}

TEST_P(CudaPlans, SkippedValues) {
  for (int64_t d : {16, 64, 128, 192, 256})
    for (int64_t nq : {1, 5, 200}) {
      const Problem p = problem(4, 2, nq, 700, d, std::min<int64_t>(d, 200), 2);
      const Inputs3 x = inputs(p);
      for (float skip : {0.3f, 2.0f}) {
        check(Plan::all(p).causal().value_skip(skip), x);
        check(Plan::band(p, 300, 0, 70).value_skip(skip), x);
        for (int bk : {64, 128})
          check(Plan::tiles(p, 64, bk, some_tiles(p, 700, 64, bk, 0.6)).causal().value_skip(skip),
                x);
      }
      Score s;
      s.alibi = {0.5f, 0.25f, 0.125f, 0.0625f}, s.softcap = 5;
      s.key_bias = random_tensor(g, {1, 2, 1, 700});
      check(Plan::all(p).causal().score(s).value_skip(1), x);
      check(Plan::all(p).mask(random_mask(g, p, 700)).value_skip(1), x);
    }
}

constexpr WeightKind kKinds[] = {WeightKind::softmax, WeightKind::elu, WeightKind::relu,
                                 WeightKind::random};

TEST_P(CudaPlans, WeightsOfFeatures) {
  for (int n = 0; n < 80; ++n) {
    Plan plan = random_plan(g, in_eights(g, n % 3 ? 70 : 300));
    if (plan.branches[0].source.kind != SourceKind::raw) continue;
    SCOPED_TRACE(describe(plan));
    check(plan.weight(features(plan.problem, kKinds[n % 4])));
  }
  for (const WeightKind kind : kKinds)
    for (int64_t nq : {1, 300}) {  // few rows are cut over keys
      const Problem p = problem(4, 2, nq, 2100, 128, 256);
      check(Plan::all(p).causal().weight(features(p, kind)));
      Problem packed = problem(2, 1, 50, 120, 40, 40);
      packed.cu_q = {0, 7, 7, 30, 50}, packed.cu_k = {0, 30, 41, 60, 120};
      check(Plan::all(packed).causal().weight(features(packed, kind)));
    }
}

// Several blocks of 64 keys: what is a sum over blocks, what goes pair by pair, and both in a row.
TEST_P(CudaPlans, FeaturesOverLongRows) {
  for (const WeightKind kind : kKinds)
    for (int64_t nq : {70, 230}) {
      const Problem p = problem(2, 1, nq, 330, 24, 16);
      const Inputs3 x = inputs(p);
      const auto of = [&](Plan plan) { return plan.weight(features(p, kind)); };
      check(of(Plan::all(p).causal()), x);
      check(of(Plan::all(p)), x);
      check(of(Plan::band(p, 200, -1, 70)), x);
      check(of(Plan::all(p).causal().mask(random_mask(g, p, 330))), x);
      for (int bq : {16, 64, 100}) {
        const int bk = int(std::array{32, 64, 128, 192}[size_t(pick(g, 0, 3))]);
        check(of(Plan::tiles(p, bq, bk, some_tiles(p, 330, bq, bk, 0.7)).causal(bq == 64)), x);
      }
    }
  // More keys than a word has blocks; a packed batch; wide values; features in two chunks.
  const Problem far = problem(2, 2, 90, 2500, 16, 16);
  check(Plan::all(far).causal().weight(features(far, WeightKind::elu)));
  check(Plan::band(far, 700, 0, 200).causal().weight(features(far, WeightKind::random)));
  Problem packed = problem(2, 1, 500, 520, 40, 40);
  packed.cu_q = {0, 7, 7, 300, 500}, packed.cu_k = {0, 30, 41, 360, 520};
  check(Plan::all(packed).causal().weight(features(packed, WeightKind::relu)));
  const Problem wide = problem(2, 1, 200, 200, 64, 200);
  check(Plan::all(wide).causal().value_map(random_map(wide)).weight(features(wide, kKinds[0])));
  Weight many{WeightKind::random, random_tensor(g, {1, 1, 300, 64})};
  check(Plan::all(wide).causal().weight(many));
}

// Large inputs: exponents of a feature differ by far more than f32's between blocks.
TEST_P(CudaPlans, FeaturesOfLargeInputs) {
  const Problem p = problem(2, 1, 200, 200, 32, 24);
  // Where exp(x) of a softmax overflows, the naive implementation has no error to compare with.
  for (const double sigma : {8.0, 60.0, 1e4})
    for (const WeightKind kind : {WeightKind::softmax, WeightKind::elu, WeightKind::relu}) {
      if (kind == WeightKind::softmax && sigma > 8) continue;
      Inputs3 x = inputs(p);
      x.q = random_tensor(g, {1, 2, 200, 32}, type(), sigma);
      x.k = random_tensor(g, {1, 1, 200, 32}, type(), sigma);
      SCOPED_TRACE(sigma);
      check(Plan::all(p).causal().weight(features(p, kind)), x);
      check(Plan::tiles(p, 64, 64, some_tiles(p, 200, 64, 64, 0.6)).weight(features(p, kind)), x);
    }
}

// Scatterbrain: exact in a window, features elsewhere, one softmax; and a gated pair.
TEST_P(CudaPlans, FeaturesBesideExponentials) {
  const Problem p = problem(4, 2, 200, 200, 64, 64);
  const Inputs3 x = inputs(p);
  TileBits far(1, 1, 4, 4), near(1, 1, 4, 4);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 4; ++c) (r == c ? near : far).set(0, 0, r, c);
  const Plan exact = Plan::tiles(p, 64, 64, near).causal();
  const Plan rest = Plan::tiles(p, 64, 64, far).causal().weight(features(p, WeightKind::random));
  check(Plan::same({exact, rest}), x);
  const Plan all = Plan::all(p).causal().weight(features(p, WeightKind::softmax));
  check(Plan::gated({exact, Plan(all).value_map(random_map(p))}, random_tensor(g, {1, 4, 200, 2})),
        x);
}

// A Runner in a graph, its workspace full of NaN, makes attend()'s bits again and again.
TEST_P(CudaPlans, GraphsRepeatTheBits) {
  const Problem p = problem(4, 2, 6, 2000, 64, 64);
  const Inputs3 x = inputs(p);
  Order o;
  o.queries = random_permutation(g, 1, 4, 6), o.keys = random_permutation(g, 1, 4, 2000);
  for (const Plan& plan :
       {Plan::tiles(p, 16, 16, some_tiles(p, 2000, 16, 16, 0.8)).causal().order(o),
        Plan::all(p).causal().value_map(random_map(p)), given(Plan::all(p).causal(), 8, 4),
        Plan::all(p).pooled(7).causal().value_map(random_map(p)),
        Plan::all(p).causal().value_skip(1),
        Plan::all(p).causal().weight(features(p, WeightKind::random))}) {
    const DeviceRun once(plan, x.q, x.k, x.v, DType::f32), many(plan, x.q, x.k, x.v, DType::f32);
    if (!takes(plan, once.t)) continue;
    attend(plan, once.t, options());
    const Runner runner(plan, many.t, options());
    const std::shared_ptr<void> workspace = cuda::allocate(runner.workspace() + 256);
    const std::vector<char> ones(size_t(runner.workspace()), '\xff');
    cuda::copy(workspace.get(), ones.data(), runner.workspace());
    run_in_graph(runner, many.t, workspace.get());
    const Tensor a = once.out(), b = many.out();
    EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
    judge(plan, x, b, many.lse());
  }
}

TEST_P(CudaPlans, PoisonStaysWhereItIsRead) {
  for (float bad : {std::nanf(""), kInfinity}) {
    const Problem p = problem(2, 1, 150, 150, 16, 16);
    Inputs3 x = inputs(p);
    put(x.v, 0, 140, 7, bad);
    if (std::isnan(bad)) put(x.q, 1, 5, 3, bad), put(x.k, 0, 130, 2, bad);
    SCOPED_TRACE(bad);
    Order o;
    o.queries = random_permutation(g, 1, 2, 150), o.keys = random_permutation(g, 1, 1, 150);
    check(Plan::tiles(p, 16, 16, some_tiles(p, 150, 16, 16, 0.5)).causal().order(o), x);
    check(Plan::band(p, 12, 0, 3).order(o), x);
    check(Plan::all(p).causal().value_skip(20), x);
    for (const WeightKind kind : kKinds) check(Plan::all(p).causal().weight(features(p, kind)), x);
  }
}

// The same over several blocks, some of which have no bad key; and keys and queries of features
// that are infinite (elu).
TEST_P(CudaPlans, PoisonStaysWhereItIsReadInLongRows) {
  const Problem p = problem(2, 1, 300, 300, 16, 16);
  const TileBits tiles = some_tiles(p, 300, 64, 64, 0.5);
  for (const WeightKind kind : kKinds)
    for (int n = 0; n < 5; ++n) {
      Inputs3 x = inputs(p);
      if (n == 0) put(x.v, 0, 140, 3, kInfinity);
      if (n == 1) put(x.v, 0, 140, 3, std::nanf("")), put(x.v, 0, 230, 3, -kInfinity);
      if (n == 2) put(x.k, 0, 140, 3, std::nanf("")), put(x.q, 1, 250, 3, std::nanf(""));
      if (n == 3 && kind == WeightKind::elu)
        put(x.k, 0, 140, 3, kInfinity), put(x.k, 0, 20, 3, -kInfinity);
      if (n == 4 && kind == WeightKind::elu) put(x.q, 0, 250, 3, kInfinity);
      SCOPED_TRACE(n);
      const Weight w = features(p, kind);
      check(Plan::all(p).causal().weight(w), x);
      check(Plan::tiles(p, 64, 64, tiles).causal().weight(w), x);
      check(Plan::all(p).causal().value_map(random_map(p)).weight(w), x);
    }
}

}  // namespace
}  // namespace regard
