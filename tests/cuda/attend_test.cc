// The GPU kernels against the reference: the bodies of cpu_test.cc over each implementation and
// type. Without a GPU every test is skipped, with the reason; a plan that an implementation refuses
// is passed over, and a test of which nothing ran is skipped.
#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "check.h"
#include "regard/inputs.h"
#include "regard/method.h"
#include "regard/status.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

INSTANTIATE_TEST_SUITE_P(Each, Cuda, kEach, by_name);

TEST_P(Cuda, TokenCountsAroundTiles) {
  for (int64_t nq : {1, 2, 5, 16, 17, 63, 65})
    for (int64_t nk : {1, 15, 63, 64, 65, 128, 131}) {
      const Problem p = problem(3, 1, nq, nk, 24, 40);
      check(Plan::all(p));
      check(Plan::all(p).causal());
    }
}

TEST_P(Cuda, HeadSizes) {
  for (auto [dk, dv] : std::vector<std::pair<int, int>>{{8, 8},
                                                        {16, 24},
                                                        {40, 40},
                                                        {64, 64},
                                                        {72, 80},
                                                        {96, 48},
                                                        {128, 128},
                                                        {192, 128},
                                                        {160, 152},
                                                        {256, 256},
                                                        {576, 512},
                                                        {24, 512}})
    for (int64_t nq : {3, 77}) check(Plan::all(problem(2, 1, nq, 271, dk, dv)).causal());
}

TEST_P(Cuda, Groups) {
  for (int64_t heads : {1, 2, 3, 4, 5, 8, 12, 16, 32})
    for (int64_t nq : {1, 3, 70}) check(Plan::all(problem(heads, 1, nq, 197, 64, 64)).causal());
  check(Plan::all(problem(250, 1, 2, 70, 8, 8)).causal());  // a group larger than a row tile
  check(Plan::all(problem(6, 3, 20, 70, 8, 8, 3)).causal());
}

TEST_P(Cuda, ManyRowTiles) {
  for (int64_t d : {64, 128, 256}) {
    const Problem p = problem(4, 2, 301, 517, d, d, 2);
    const Inputs3 x = inputs(p);
    check(Plan::all(p), x);
    check(Plan::all(p).causal(), x);
    check(Plan::band(p, 50, 0, 4), x);
    check(Plan::band(p, 20, 10, 100), x);
  }
}

// Few rows over many keys: cut over keys and merged.
TEST_P(Cuda, Decode) {
  for (int64_t d : {64, 128, 256, 192})
    for (int64_t nq : {1, 2, 4})
      for (int64_t group : {1, 4, 8}) {
        const Problem p = problem(2 * group, 2, nq, 3001, d, std::min<int64_t>(d, 128), 2);
        check(Plan::all(p).causal());
      }
}

TEST_P(Cuda, OutputTypes) {
  for (DType out : {DType::f32, DType::f16, DType::bf16})
    for (int64_t nk : {90, 2000}) {
      const Problem p = problem(2, 1, 14, nk, 64, 72);
      check(Plan::all(p).causal(), inputs(p), out);
    }
}

TEST_P(Cuda, RandomPlans) {
  for (int n = 0; n < 150; ++n) {
    Problem p = random_problem(g, n % 3 ? 70 : 300);
    p.dk = 8 * pick(g, 1, 10), p.dv = 8 * pick(g, 1, 10);
    p.scale = 1 / std::sqrt(float(p.dk));
    const Plan plan = random_plan(g, p);
    SCOPED_TRACE(describe(plan));
    check(plan);
  }
}

TEST_P(Cuda, TilesAndColumns) {
  for (auto [bq, bk] : std::vector<std::pair<int, int>>{
           {64, 64}, {128, 128}, {128, 64}, {32, 16}, {64, 24}, {13, 7}, {16, 1}, {1, 1}}) {
    const Problem p = problem(4, 2, 200, 333, 64, 64);
    const Inputs3 x = inputs(p);
    for (int64_t heads : {1, 2, 4}) {
      TileBits bits(1, heads, (p.nq + bq - 1) / bq, (p.nk + bk - 1) / bk);
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t r = 0; r < bits.rows; ++r)
          for (int64_t c = 0; c < bits.cols; ++c) bits.set(0, h, r, c, coin(g, r == 0 ? 0 : 0.3));
      check(Plan::tiles(p, bq, bk, bits).causal(), x);
      check(Plan::tiles(p, bq, bk, bits), x);
      check(Plan::tiles(p, bq, bk, bits).mask(random_mask(g, p, p.nk)), x);
    }
  }
}

// Tiles and single keys of the same rows under one softmax: where every query of a row sees its
// single keys, and where some do not.
TEST_P(Cuda, TilesBesideSingleKeys) {
  for (int64_t d : {64, 128})
    for (int64_t nk : {333, 1000})
      for (int64_t heads : {1, 2, 4})
        for (double density : {0.0, 0.03, 0.4})
          for (bool cut : {false, true}) {
            const int bq = heads == 2 ? 128 : 64;
            const Problem p = problem(4, 2, 200, nk, d, d, 2);
            Inputs3 x = inputs(p);
            const int64_t rows = (p.nq + bq - 1) / bq;
            TileBits tiles(1, heads, rows, (p.nk + 63) / 64), keys(1, heads, rows, p.nk);
            for (int64_t h = 0; h < heads; ++h)
              for (int64_t r = 0; r < rows; ++r) {
                for (int64_t c = 0; c < tiles.cols; ++c) tiles.set(0, h, r, c, coin(g, 0.3));
                const int64_t seen = cut ? p.nk : p.offset + r * bq + 1;
                for (int64_t j = 0; j < seen; ++j)
                  keys.set(0, h, r, j, !tiles.get(0, h, r, j / 64) && coin(g, density));
              }
            TileBits both = keys;
            for (int64_t h = 0; h < heads; ++h)
              for (int64_t r = 0; r < rows; ++r)
                for (int64_t j = 0; j < p.nk; ++j)
                  if (tiles.get(0, h, r, j / 64)) both.set(0, h, r, j);
            const auto columns = [&](const TileBits& bits) {
              return Plan::columns(p, *Plan::tiles(p, bq, 1, bits).branches[0].cover.list);
            };
            const Plan plan = Plan::same({Plan::tiles(p, bq, 64, tiles), columns(keys)}).causal();
            SCOPED_TRACE(describe(plan));
            const DeviceRun run(plan, x.q, x.k, x.v, DType::f32);
            if (takes(plan, run.t)) {
              attend(plan, run.t, options());
              judge(columns(both).causal(), x, run.out(), run.lse());
            }
            check(columns(keys).causal(), x);
            // A value that some rows read and others do not.
            put(x.v, 0, 140, 0, kInfinity);
            const DeviceRun spoilt(plan, x.q, x.k, x.v, DType::f32);
            if (!takes(plan, spoilt.t)) continue;
            attend(plan, spoilt.t, options());
            judge(columns(both).causal(), x, spoilt.out(), spoilt.lse());
          }
}

TEST_P(Cuda, Segments) {
  for (int64_t d : {16, 128}) {
    Problem p = problem(2, 1, 50, 120, d, d);
    p.cu_q = {0, 7, 7, 30, 50};
    p.cu_k = {0, 30, 41, 60, 120};
    const Inputs3 x = inputs(p);
    check(Plan::all(p), x);
    check(Plan::all(p).causal(), x);
    check(Plan::band(p, 5, 0), x);
    Score alibi;
    alibi.alibi = {0.25f, 0.0625f};
    check(Plan::all(p).causal().score(alibi), x);
  }
}

Score random_score(Rng& g, const Problem& p, int64_t keys, int kind) {
  Score s;
  if (kind & 1) s.softcap = 3;
  if (kind & 2)
    for (int64_t h = 0; h < p.heads; ++h) s.alibi.push_back(std::ldexp(1.0f, -int(h) - 1));
  if (kind & 4) {
    const DType types[] = {DType::f32, DType::f16, DType::bf16};
    s.bias = random_tensor(g, {coin(g) ? 1 : p.batch, coin(g) ? 1 : p.heads, p.nq, keys},
                           types[pick(g, 0, 2)]);
    for (int64_t i = 0; i < p.nq; ++i)
      for (int64_t j = 0; j < keys; ++j) {
        if (!coin(g, i == 3 ? 1.0 : 0.1)) continue;  // row 3 may read nothing
        put(s.bias, 0, i, j, -kInfinity);
      }
    if (coin(g))
      for (int64_t h = 0; h < p.heads; ++h) s.bias_scale.push_back(float(h) - 0.5f);
  }
  if (kind & 8)
    s.key_bias = random_tensor(g, {coin(g) ? 1 : p.batch, coin(g) ? 1 : p.kv_heads, 1, keys});
  return s;
}

TEST_P(Cuda, ScoresAndNorms) {
  for (int kind = 0; kind < 16; ++kind)
    for (NormKind norm : {NormKind::softmax, NormKind::softmax_sink, NormKind::sigmoid}) {
      const Problem p = problem(4, 2, kind % 2 ? 17 : 3, 683, 16, 16, 2);
      Norm n;
      n.kind = norm;
      if (norm == NormKind::softmax_sink) n.sink = {0.5f, -2.0f, 4.0f, -kInfinity};
      n.shift = norm == NormKind::sigmoid ? -2.0f : 0.0f;
      const Inputs3 x = inputs(p);
      SCOPED_TRACE(kind * 10 + int(norm));
      const Score s = random_score(g, p, p.nk, kind);
      check(Plan::all(p).causal().score(s).norm(n), x);
      check(Plan::band(p, 20, 0, 2).score(s).norm(n), x);
    }
}

TEST_P(Cuda, ScoresOnPooledAndGatheredKeys) {
  for (int kind = 0; kind < 16; ++kind) {
    const Problem p = problem(2, 1, 15, 100, 8, 8);
    const Inputs3 x = inputs(p);
    SCOPED_TRACE(kind);
    check(Plan::all(p).pooled(7).causal().score(random_score(g, p, 15, kind & ~2)), x);  // no alibi
    TileBits bits(1, 1, 3, p.nk);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < p.nk; ++c) bits.set(0, 0, r, c, coin(g, 0.6));
    const Plan tiles = Plan::tiles(p, 5, 1, bits);
    const Score s = random_score(g, p, p.nk, kind);
    check(Plan::columns(p, *tiles.branches[0].cover.list).causal().score(s), x);
  }
}

TEST_P(Cuda, RowsWithoutKeys) {
  for (int64_t d : {8, 128}) {
    const Problem p = problem(2, 1, 40, 20, d, d);  // the first 20 queries see nothing
    const Inputs3 x = inputs(p);
    check(Plan::all(p).causal(), x);
    auto mask = std::make_shared<BitMask>();
    mask->nq = p.nq, mask->nk = p.nk;
    mask->words.assign(size_t(p.nq), 0);
    mask->words[30] = 5;
    check(Plan::all(p).mask(mask), x);
    TileBits none(1, 1, 3, 2);
    none.set(0, 0, 1, 0);
    check(Plan::tiles(p, 16, 16, none), x);
  }
  // Most tiles of rows are empty, many in a row behind one that is not.
  for (int64_t d : {64, 128, 256}) check(Plan::all(problem(16, 16, 6000, 70, d, d)).causal());
}

TEST_P(Cuda, PoisonStaysWhereItIsRead) {
  for (float bad : {std::nanf(""), kInfinity, -kInfinity})
    for (int64_t nq : {8, 40}) {
      const Problem p = problem(2, 1, nq, 150, 16, 16);
      Inputs3 x = inputs(p);
      put(x.q, 1, 5, 3, bad);
      put(x.k, 0, 130, 2, bad);  // read by the causal rows whose position is 130 or more
      put(x.v, 0, 147, 7, bad);
      SCOPED_TRACE(bad);
      check(Plan::all(p).causal(), x);
      Plan capped = Plan::all(p).causal();  // a cap leaves NaN and bounds an infinity
      capped.branches[0].score.softcap = 20;
      check(capped, x);
      check(Plan::band(p, 12, 0, 3), x);
      TileBits bits(1, 1, 5, 10);
      for (int64_t r = 0; r < 5; ++r)
        for (int64_t c = 0; c < 10; ++c) bits.set(0, 0, r, c, (r + c) % 2 == 0);
      if (nq == 40) check(Plan::tiles(p, 8, 16, bits).causal(), x);
    }
}

TEST_P(Cuda, HugeAndTinyScores) {
  for (float scale : {1e4f, 1e30f, 1e-6f, 0.0f, -3.0f})
    for (int64_t nq : {3, 70}) {
      Problem p = problem(2, 1, nq, 840, 16, 16);
      p.scale = scale;
      SCOPED_TRACE(scale);
      check(Plan::all(p).causal(), inputs(p));
    }
}

TEST_P(Cuda, CombinedBranches) {
  for (int64_t nq : {3, 90}) {
    const Problem p = problem(4, 2, nq, 700, 64, 64, 2);
    const Inputs3 x = inputs(p);
    const DeviceRun d(Plan::all(p), x.q, x.k, x.v, DType::f32);
    std::vector<Plan> pieces;
    for (int n = 0; n < 3; ++n) {
      TileBits bits(1, 1, (nq + 15) / 16, 88);
      for (int64_t r = 0; r < bits.rows; ++r)
        for (int64_t c = n; c < 88; c += 3) bits.set(0, 0, r, c);
      pieces.push_back(Plan::tiles(p, 16, 8, bits).causal());
    }
    const Plan same = Plan::same(pieces);
    if (!takes(same, d.t)) continue;
    attend(same, d.t, options());
    judge(Plan::all(p).causal(), x, d.out(), d.lse());

    Tensor gate = random_tensor(g, {p.batch, p.heads, p.nq, 2});
    const Plan a = Plan::band(p, 40, 0).causal(), b = Plan::all(p).pooled(8).causal();
    const Plan gated = Plan::gated({a, b}, gate);
    attend(gated, d.t, options());
    const Tensor got = d.out(), got_lse = d.lse();
    const Tensor want = make_tensor(DType::f32, got.view.size);
    const Tensor lse = make_tensor(DType::f32, got_lse.view.size);
    Out o;
    o.out = want.view, o.lse = lse.view;
    RunOptions by_ref;
    by_ref.impl = "ref";
    attend(gated, x.q.view, x.k.view, x.v.view, o, by_ref);
    // Weights and pooled keys are rounded to 8 or 11 bits; rows are means of values of order 1.
    const double bound = type() == DType::bf16 ? 4e-2 : 5e-3;
    const float *u = static_cast<const float*>(got.view.data),
                *w = static_cast<const float*>(want.view.data);
    for (int64_t n = 0; n < got.view.numel(); ++n) ASSERT_NEAR(u[n], w[n], bound);
    u = static_cast<const float*>(got_lse.view.data);
    w = static_cast<const float*>(lse.view.data);
    for (int64_t n = 0; n < lse.view.numel(); ++n) {
      if (u[n] != w[n]) {
        ASSERT_NEAR(u[n], w[n], bound);
      }
    }
  }
}

// A plan of several branches on cuda_sm90 leaves to the baseline what it does not take: here tiles
// of other sizes and pooled keys.
TEST_P(Cuda, BranchesOfSeveralKernels) {
  for (int64_t d : {64, 128, 256})
    for (bool shared : {true, false})
      for (float bad : {0.f, std::nanf(""), kInfinity}) {
        SCOPED_TRACE(bad);
        const Problem p = problem(4, 2, 300, 900, d, d, 2);
        Inputs3 x = inputs(p);
        if (bad != 0)
          for (const auto& [t, i] : {std::pair{x.q, 100}, {x.k, 700}, {x.v, 650}, {x.v, 899}})
            put(t, 1, i, 5, bad);
        TileBits wide(1, 1, 5, 15), thin(1, 4, 19, 113), single(1, 1, 5, 900);
        for (int64_t r = 0; r < 5; ++r) wide.set(0, 0, r, r, true), wide.set(0, 0, r, 9, true);
        for (int64_t h = 0; h < 4; ++h)
          for (int64_t r = 0; r < 19; ++r) thin.set(0, h, r, 42 + (r + h) % 6, true);
        for (int64_t r = 0; r < 5; ++r)
          for (int64_t c = 640 + r; c < 900; c += 37) single.set(0, 0, r, c, true);
        Norm sink;
        sink.kind = NormKind::softmax_sink, sink.sink = {1, -1, 30, 0};
        std::vector<Plan> pieces = {Plan::tiles(p, 64, 64, wide).causal(),
                                    Plan::tiles(p, 16, 8, thin).causal(),
                                    Plan::tiles(p, 64, 1, single).causal()};
        if (shared) {
          check(Plan::same(pieces).norm(sink), x);
        } else {
          pieces.push_back(Plan::band(p, 100, 0, 5).causal().norm(sink));
          pieces.push_back(Plan::all(p).pooled(8).causal());
          check(Plan::gated(pieces, random_tensor(g, {2, 4, 300, 5})), x);
        }
      }
}

// More tiles of 128 rows than multiprocessors: the baseline's wide instances.
TEST_P(Cuda, WideRows) {
  if (std::string(GetParam().impl) != "cuda_sm80") GTEST_SKIP() << "instances of cuda_sm80";
  for (auto [dk, dv] :
       std::vector<std::pair<int, int>>{{16, 24}, {128, 128}, {192, 128}, {256, 256}}) {
    const Problem p = problem(360, 180, 50, 100, dk, dv);
    const Inputs3 x = inputs(p);
    SCOPED_TRACE(dk);
    check(Plan::all(p).causal(), x);
    check(Plan::band(p, 20, 10, 70), x, DType::bf16);
    if (dk > 128) continue;
    Norm sink;
    sink.kind = NormKind::softmax_sink;
    sink.sink.assign(size_t(p.heads), 0.5f);
    check(Plan::all(p).norm(sink), x);
    for (float scale : {100.0f, 1e30f, 1e-6f}) {
      Problem scaled = p;
      scaled.scale = scale;
      SCOPED_TRACE(scale);
      check(Plan::all(scaled).causal(), x);
    }
    check(Plan::all(problem(360, 180, 50, 20, dk, dv)).causal());  // 30 queries see nothing
    for (float bad : {std::nanf(""), kInfinity, -kInfinity}) {
      const Inputs3 spoilt = inputs(p);
      put(spoilt.q, 1, 5, 3, bad), put(spoilt.k, 0, 80, 3, bad), put(spoilt.v, 0, 97, 3, bad);
      SCOPED_TRACE(bad);
      check(Plan::all(p).causal(), spoilt);
      check(Plan::band(p, 12, 0, 3), spoilt);
    }
  }
}

// Keys in pages, against the same keys side by side: the same tiles in the same order, so equal
// bits.
struct Paged {
  int64_t pages;  // a batch item
  std::vector<int32_t> order;
  Tensor k, v, table;
};
Paged in_pages(Rng& g, const Problem& p, const Inputs3& x, int64_t page) {
  Paged to;
  to.pages = (p.nk + page - 1) / page;
  to.order.resize(size_t(to.pages * p.batch));
  for (size_t n = 0; n < to.order.size(); ++n) to.order[n] = int32_t(n);
  std::shuffle(to.order.begin(), to.order.end(), g);
  const auto pool = [&](const Tensor& from) {
    const Tensor all =
        make_tensor(from.view.dtype, {to.pages * p.batch, p.kv_heads, page, from.view.size[3]});
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.kv_heads; ++h)
        for (int64_t j = 0; j < p.nk; ++j)
          std::memcpy(all.view.at(to.order[size_t(b * to.pages + j / page)], h, j % page),
                      from.view.at(b, h, j), size_t(from.view.size[3]) * 2);
    return all;
  };
  to.k = pool(x.k), to.v = pool(x.v);
  to.table = make_tensor(DType::i32, {p.batch, 1, 1, to.pages});
  std::memcpy(to.table.view.data, to.order.data(), to.order.size() * 4);
  return to;
}
TEST_P(Cuda, PagesChangeNoBit) {
  for (int64_t page : {1, 16, 64})
    for (int64_t nq : {1, 40}) {
      const Problem p = problem(8, 2, nq, 777, 128, 128, 2);
      const Inputs3 x = inputs(p);
      const Paged pool = in_pages(g, p, x, page);
      TileBits bits(1, p.heads, (nq + 31) / 32, p.nk);
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t r = 0; r < bits.rows; ++r)
          for (int64_t c = 0; c < p.nk; ++c) bits.set(0, h, r, c, coin(g, 0.5));
      const Plan columns =
          Plan::columns(p, *Plan::tiles(p, 32, 1, bits).branches[0].cover.list).causal();

      const Tensor map = random_tensor(g, {1, 2, 129, 128}, DType::f32, 0.1);
      const Plan mapped = Plan::all(p).causal().value_map(map);
      const Plan of_features = Plan::all(p).causal().weight({WeightKind::elu, {}});
      Order o;
      o.keys = random_permutation(g, 2, 2, p.nk);
      const Plan ordered = Plan(columns).order(o);
      for (const Plan& plan : {Plan::all(p).causal(), Plan::band(p, 99, 0, 130),
                               Plan::band(p, 444, 0), columns, Plan::all(p).pooled(8), mapped,
                               Plan::all(p).pooled(8).value_map(map), of_features, ordered}) {
        const DeviceRun plain(plan, x.q, x.k, x.v, DType::f32);
        DeviceRun paged(plan, x.q, pool.k, pool.v, DType::f32);
        paged.t.pages = paged.up(pool.table);
        if (!takes(plan, paged.t) || !takes(plan, plain.t)) continue;
        attend(plan, plain.t, options());
        attend(plan, paged.t, options());
        judge(plan, x, paged.out(), paged.lse());
        const Tensor a = plain.out(), b = paged.out();
        EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
      }
    }
}

// More rows than multiprocessors, so that a block reads all 40 tiles of its keys: more pages than a
// warp asks for at once.
TEST_P(Cuda, LongRowsInPages) {
  const Problem p = problem(4, 4, 1, 5003, 128, 128, 40);
  const Plan plan = Plan::all(p);
  if (std::string(GetParam().impl) != "cuda_sm80") GTEST_SKIP() << "pages are cuda_sm80's";
  Problem one = p;
  one.batch = 1;
  Inputs3 x = inputs(one);
  for (Tensor* t : {&x.q, &x.k, &x.v}) {  // the same keys for all, in pages of their own
    const auto size = t->view.size;
    const Tensor all = make_tensor(type(), {p.batch, size[1], size[2], size[3]});
    for (int64_t b = 0; b < p.batch; ++b)
      std::memcpy(all.view.at(b, 0, 0), t->view.data, size_t(t->view.numel()) * 2);
    *t = all;
  }
  const Paged pool = in_pages(g, p, x, 16);
  const DeviceRun plain(plan, x.q, x.k, x.v, DType::f32);
  DeviceRun paged(plan, x.q, pool.k, pool.v, DType::f32);
  paged.t.pages = paged.up(pool.table);
  ASSERT_TRUE(takes(plan, paged.t) && takes(plan, plain.t));
  attend(plan, plain.t, options());
  attend(plan, paged.t, options());
  judge(plan, x, plain.out(), plain.lse());
  const Tensor a = plain.out(), b = paged.out();
  EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
}

// [B, N, H, D] seen as [B, H, N, D], with gaps, and values repeated (stride 0).
TEST_P(Cuda, Strides) {
  const Problem p = problem(4, 2, 70, 190, 64, 40);
  const Inputs3 x = inputs(p);
  const auto wide = [&](const Tensor& from, DeviceRun* d) {
    const int64_t heads = from.view.size[1], n = from.view.size[2], c = from.view.size[3];
    const Tensor memory = make_tensor(type(), {1, n, heads, c + 8});
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i)
        std::memcpy(memory.view.at(0, i, h), from.view.at(0, h, i), size_t(c) * 2);
    View v = d->up(memory);
    v.size = from.view.size;
    std::swap(v.stride[1], v.stride[2]);
    return v;
  };
  const Plan plan = Plan::all(p).causal();
  const DeviceRun plain(plan, x.q, x.k, x.v, DType::f32);
  DeviceRun strided(plan, x.q, x.k, x.v, DType::f32);
  strided.t.q = wide(x.q, &strided), strided.t.k = wide(x.k, &strided);
  strided.t.v = wide(x.v, &strided);
  if (!takes(plan, strided.t)) return;
  attend(plan, plain.t, options());
  attend(plan, strided.t, options());
  const Tensor a = plain.out(), b = strided.out();
  EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
}

// One Runner, two workspaces, two streams' worth of calls through a graph: the same bits.
TEST_P(Cuda, GraphsRepeatTheBits) {
  for (int64_t nq : {1, 200}) {
    const Problem p = problem(8, 2, nq, 2048, 128, 128);
    const Inputs3 x = inputs(p);
    const Plan plan = Plan::all(p).causal();
    const DeviceRun once(plan, x.q, x.k, x.v, DType::f32), many(plan, x.q, x.k, x.v, DType::f32);
    if (!takes(plan, once.t)) continue;
    attend(plan, once.t, options());
    const Runner runner(plan, many.t, options());
    EXPECT_EQ(runner.implementation(), GetParam().impl);
    const std::shared_ptr<void> workspace = cuda::allocate(runner.workspace());
    run_in_graph(runner, many.t, workspace.get());
    const Tensor a = once.out(), b = many.out();
    EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
  }
}

// Lists that the device made and kept, against the same lists sent from the host, and in a graph on
// another stream than the one that made them: the same bits, or the oracle's within its bounds.
TEST_P(Cuda, ListsOfTheDeviceAreThoseOfTheHost) {
  for (auto [nq, nk, d] : {std::array{2048, 2048, 128}, {1000, 1960, 64}, {500, 1999, 128}}) {
    const Problem p = problem(8, 2, nq, nk, d, d);
    const Inputs3 x = inputs(p);
    for (const char* spec : {"xattention:threshold=0.7", "block_sparse:top_k=3",
                             "vertical_slash:vertical_size=64,slash_size=200"}) {
      SCOPED_TRACE(spec);
      const DeviceRun there(Plan::all(p), x.q, x.k, x.v, DType::f32);
      const DeviceRun sent(Plan::all(p), x.q, x.k, x.v, DType::f32);
      const DeviceRun graph(Plan::all(p), x.q, x.k, x.v, DType::f32);
      Inputs in;
      in.q = there.t.q, in.k = there.t.k, in.v = there.t.v, in.problem = p, in.causal = true;
      const auto plan = [&] { return make_plan(parse_method(spec), in, Ctx{}); };
      if (!takes(plan(), there.t)) continue;
      attend(plan(), there.t, options());
      attend(plan_from_json(to_json(plan())), sent.t, options());
      const Runner runner(plan(), graph.t, options());
      const std::shared_ptr<void> workspace = cuda::allocate(runner.workspace());
      run_in_graph(runner, graph.t, workspace.get());
      const Tensor a = there.out();
      const auto same = [&](const Tensor& b) {
        EXPECT_EQ(std::memcmp(a.view.data, b.view.data, size_t(a.view.numel()) * 4), 0);
      };
      same(graph.out());
      if (plan().branches.size() == 1) {
        same(sent.out());
      } else {  // cuda_sm90 reads tiles and single keys that the device made in other steps
        judge(plan(), x, a, there.lse());
        judge(plan(), x, sent.out(), sent.lse());
      }
    }
  }
}

// More workspaces than have counters of the plan's own, each used twice, some by turns: the same
// bits.
TEST_P(Cuda, AnyNumberOfWorkspaces) {
  for (auto [heads, nq] : std::vector<std::pair<int64_t, int64_t>>{{8, 1}, {40, 500}}) {
    const Problem p = problem(heads, heads / 4, nq, 2048, 128, 128);
    const Inputs3 x = inputs(p);
    const Plan plan = Plan::all(p).causal();
    const DeviceRun d(plan, x.q, x.k, x.v, DType::f32);
    if (!takes(plan, d.t)) continue;
    attend(plan, d.t, options());
    const Tensor want = d.out();
    const Runner runner(plan, d.t, options());
    std::vector<std::shared_ptr<void>> workspaces;
    for (int n = 0; n < 20; ++n) workspaces.push_back(cuda::allocate(runner.workspace()));
    for (int n = 0; n < 40; ++n) {
      runner.run(d.t, workspaces[size_t(n % 20)].get(), runner.workspace());
      const Tensor got = d.out();
      ASSERT_EQ(std::memcmp(got.view.data, want.view.data, size_t(got.view.numel()) * 4), 0) << n;
    }
  }
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST_P(Cuda, BadCallsAreErrorsAndLeaveNoneBehind) {
  const Problem p = problem(8, 2, 1, 2048, 128, 128);
  const Inputs3 x = inputs(p);
  const Plan plan = Plan::all(p).causal();
  const DeviceRun d(plan, x.q, x.k, x.v, DType::f32);
  if (!takes(plan, d.t)) return;
  const auto says = [&](const char* words, const std::function<void(regard::Tensors&)>& spoil) {
    regard::Tensors t = d.t;
    spoil(t);
    const std::string m = message([&] { attend(plan, t, options()); });
    EXPECT_NE(m.find(words), std::string::npos) << m;
  };
  says("accepted: one device", [&](regard::Tensors& t) { t.k = x.k.view; });
  says("not in a GPU's memory", [&](regard::Tensors& t) { t.k.data = x.k.view.data; });
  says("not aligned", [&](regard::Tensors& t) { t.k.data = static_cast<char*>(t.k.data) + 2; });
  says("strides", [&](regard::Tensors& t) { t.v.stride[2] += 2; });
  says("accepted: all f16 or all bf16",
       [&](regard::Tensors& t) { t.k.dtype = type() == DType::f16 ? DType::bf16 : DType::f16; });
  const Runner runner(plan, d.t, options());
  if (runner.workspace() > 0) {
    const std::string m = message([&] { runner.run(d.t, nullptr, 0); });
    EXPECT_NE(m.find("needed"), std::string::npos) << m;
  }
  RunOptions cpu;
  cpu.impl = "cpu";
  EXPECT_NE(message([&] { attend(plan, d.t, cpu); }).find("a GPU's memory"), std::string::npos);
  attend(plan, d.t, options());  // and nothing sticks
  judge(plan, x, d.out(), d.lse());
}

// More than 2^31 elements of keys: the last key's row is far beyond 32-bit offsets.
TEST_P(Cuda, OffsetsBeyond32Bits) {
  const int64_t tokens = (int64_t(1) << 31) / (64 * 128) + 300;
  const Problem p = problem(64, 64, 1, 300, 128, 128);
  const Inputs3 x = inputs(p);
  const Plan plan = Plan::all(p);
  DeviceRun d(plan, x.q, x.k, x.v, DType::f32);
  // Token-major memory [tokens, heads, 128], of which the last 300 tokens are used.
  const int64_t row = 64 * 128 * 2, bytes = tokens * row;
  const std::shared_ptr<void> memory = cuda::allocate(bytes);
  d.own.push_back({View{}, memory});
  View k = d.t.k;
  k.data = static_cast<char*>(memory.get()) + (tokens - 300) * row;
  k.stride = {bytes, 128 * 2, row, 2};
  const Tensor packed = make_tensor(type(), {1, 300, 64, 128});
  for (int64_t h = 0; h < 64; ++h)
    for (int64_t j = 0; j < 300; ++j)
      std::memcpy(packed.view.at(0, j, h), x.k.view.at(0, h, j), 256);
  cuda::copy(k.data, packed.view.data, 300 * row);
  // The same through pages of one token, so that the kernel itself makes the large offsets.
  regard::Tensors t = d.t;
  t.k = k;
  t.k.data = memory.get();
  t.k.size = {tokens, 64, 1, 128}, t.k.stride = {row, 256, row, 2};
  Tensor v_packed = make_tensor(type(), {300, 64, 1, 128});
  for (int64_t h = 0; h < 64; ++h)
    for (int64_t j = 0; j < 300; ++j)
      std::memcpy(v_packed.view.at(j, h, 0), x.v.view.at(0, h, j), 256);
  const std::shared_ptr<void> v_memory = cuda::allocate(bytes);
  cuda::copy(static_cast<char*>(v_memory.get()) + (tokens - 300) * row, v_packed.view.data,
             300 * row);
  t.v = t.k;
  t.v.data = v_memory.get();
  const Tensor table = make_tensor(DType::i32, {1, 1, 1, 300});
  for (int32_t j = 0; j < 300; ++j)
    static_cast<int32_t*>(table.view.data)[j] = int32_t(tokens - 300 + j);
  t.pages = d.up(table);
  if (!takes(plan, t)) return;
  attend(plan, t, options());
  judge(plan, x, d.out(), d.lse());
}

TEST(CudaAbsent, SaysWhy) {
  Rng g(3);
  const Problem p = problem(1, 1, 2, 8, 8, 8);
  const Inputs3 x(g, p, DType::bf16);
  const Tensor out = make_tensor(DType::f32, {1, 1, 2, 8});
  regard::Tensors t{x.q.view, x.k.view, x.v.view, {out.view, {}, {}}, {}};
  const std::vector<Choice> list = explain(Plan::all(p), t);
  ASSERT_EQ(list.size(), 4u);
  for (int n : {0, 1}) EXPECT_FALSE(list[size_t(n)].refusal.empty());
  EXPECT_TRUE(list[2].chosen);
  EXPECT_NE(message([&] { attend(Plan::all(p), t, {.impl = "cuda_sm80"}); }).find("cuda_sm80: "),
            std::string::npos);
  // A CPU call does not count the GPU's refusals as a fallback.
  attend(Plan::all(p), t, {.strict = true});
}

}  // namespace
}  // namespace regard
