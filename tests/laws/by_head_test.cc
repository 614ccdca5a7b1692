// plan_by_head: every head reads the pairs of its own part, and attention is that of the parts.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "exec/profile.h"
#include "plan/by_head.h"
#include "random_plan.h"
#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard {
namespace {

// Head n of the first batch item, by itself.
View head(const Tensor& t, int64_t n) {
  View view = t.view;
  view.data = view.at(0, n, 0);
  view.size[1] = 1;
  return view;
}

using test::Rng;

Plan random_part(Rng& g, const Problem& p) {
  const auto tiles = [&](int bq, int bk) {
    TileBits bits(p.batch, p.heads, (p.nq + bq - 1) / bq, (p.nk + bk - 1) / bk);
    for (int64_t b = 0; b < bits.batch; ++b)
      for (int64_t h = 0; h < bits.heads; ++h)
        for (int64_t r = 0; r < bits.rows; ++r)
          for (int64_t c = 0; c < bits.cols; ++c) bits.set(b, h, r, c, test::coin(g, 0.4));
    return Plan::tiles(p, bq, bk, bits);
  };
  switch (test::pick(g, 0, 3)) {
    case 0:
      return Plan::all(p).causal();
    case 1:
      return Plan::band(p, 9, 0, 3).causal();
    case 2:
      return tiles(8, 16).causal();
    default:
      return tiles(16, 8).causal();
  }
}

// Beside other kinds of heads a window reads whole tiles: pairs of tiles that it touches.
bool shares_a_tile(const BitMask& want, const IndexList& l, const Problem& p, int64_t b, int64_t h,
                   int64_t i, int64_t j) {
  for (int64_t y = i / l.bq * l.bq; y < std::min(p.nq, (i / l.bq + 1) * l.bq); ++y)
    for (int64_t x = j / l.bk * l.bk; x < std::min(p.nk, (j / l.bk + 1) * l.bk); ++x)
      if (want.get(b, h, y, x)) return true;
  return false;
}

TEST(ByHead, EveryHeadReadsItsOwnPartsPairs) {
  Rng g(11);
  for (int round = 0; round < 60; ++round) {
    Problem p = test::random_problem(g);
    p.kv_heads = 3, p.heads = 6;
    p.offset = p.nk - p.nq;
    std::vector<Plan> parts;
    for (const int64_t heads : {2, 1, 1, 2}) {
      Problem q = p;
      q.heads = heads;
      q.kv_heads = 1;
      parts.push_back(random_part(g, q));
    }
    Plan whole = plan_by_head(p, parts);
    whole.lower();
    EXPECT_NO_THROW(whole.validate());
    int64_t head = 0;
    for (Plan& part : parts) {
      const BitMask want = expand(part, 0);
      std::vector<BitMask> have;
      for (size_t n = 0; n < whole.branches.size(); ++n) have.push_back(expand(whole, int(n)));
      for (int64_t h = 0; h < part.problem.heads; ++h, ++head)
        for (int64_t b = 0; b < p.batch; ++b)
          for (int64_t i = 0; i < p.nq; ++i)
            for (int64_t j = 0; j < p.nk; ++j) {
              int reads = 0;
              for (const BitMask& m : have) reads += m.get(b, head, i, j);
              const bool more = reads == 1 && part.branches[0].cover.kind == CoverKind::band &&
                                whole.branches[0].rule.window.unlimited() && j <= i + p.offset &&
                                shares_a_tile(want, *whole.branches[0].cover.list, p, b, h, i, j);
              ASSERT_TRUE(reads == int(want.get(b, h, i, j)) || more)
                  << p.str() << " round " << round << " head " << head << " " << i << " " << j;
            }
    }
  }
}

TEST(ByHead, RefusesWhatOnePlanCannotSay) {
  Problem p;
  p.heads = p.kv_heads = 1;
  p.nq = p.nk = 64;
  p.dk = p.dv = 4;
  p.scale = 1;
  Problem two = p;
  two.heads = two.kv_heads = 2;
  EXPECT_THROW(plan_by_head(two, {Plan::all(p)}), Error);
  EXPECT_THROW(plan_by_head(two, {Plan::all(p), Plan::all(p).pooled(8)}), Error);
  Problem many = p;
  many.heads = many.kv_heads = 17;
  std::vector<Plan> parts;
  for (int64_t left = 1; left <= 17; ++left) {
    IndexList one;
    one.rows = one.bk = 1, one.cols = one.bq = 64;
    one.start = {0, 1}, one.index = {3};
    parts.push_back(Plan::columns(p, one).window({left, 0, 0}));
  }
  EXPECT_THROW(plan_by_head(many, parts), Error);
  const auto turned = std::make_shared<Permutation>();
  EXPECT_THROW(plan_by_head(two, {Plan::all(p), Plan::all(p).order({turned, nullptr})}), Error);
}

TEST(ByHead, WindowsBecomeOnePassAndEmptyBranchesNone) {
  Problem p;
  p.heads = p.kv_heads = 1;
  p.nq = p.nk = 256;
  p.dk = p.dv = 4;
  p.scale = 1;
  Problem three = p;
  three.heads = three.kv_heads = 3;
  IndexList none;
  none.rows = none.cols = 256, none.bq = none.bk = 1;
  none.start.assign(257, 0);
  Plan whole =
      plan_by_head(three, {Plan::band(p, 70, 0).causal(), Plan::band(p, 3, 0).causal(),
                           Plan::same({Plan::all(p).causal(), Plan::columns(p, none).causal()})});
  ASSERT_EQ(whole.branches.size(), 1u);
  EXPECT_EQ(whole.branches[0].cover.list->bq, 64);
  whole.lower();
  const BitMask reads = expand(whole, 0);
  EXPECT_TRUE(reads.get(0, 0, 192, 64));   // 128 back: a tile that query 192's window touches
  EXPECT_FALSE(reads.get(0, 0, 192, 63));  // two tiles back
  EXPECT_TRUE(reads.get(0, 2, 192, 0));
}

std::string write_profile(const std::string& text) {
  const std::string path = testing::TempDir() + "/profile.json";
  std::ofstream(path) << text;
  return path;
}

TEST(Profile, AttentionIsThatOfEachHeadsMethod) {
  Rng g(5);
  const std::vector<std::string> specs = {"dense", "block_sparse:block=32,top_k=2",
                                          "xattention:block=16,stride=4,threshold=0.7",
                                          "vertical_slash:vertical_size=30,slash_size=50"};
  const Profile profile = load_profile(write_profile(
      R"({"regard_profile": 1, "methods": ["dense", "block_sparse:block=32,top_k=2",
          "xattention:block=16,stride=4,threshold=0.7",
          "vertical_slash:vertical_size=30,slash_size=50"],
          "layers": {"3": [1, 1, 0, 2, 2, 3]}})"));
  const std::vector<int64_t> chosen = {1, 1, 0, 2, 2, 3};
  Problem p;
  p.heads = 6, p.kv_heads = 3, p.nq = 96, p.nk = 224, p.offset = 128, p.dk = p.dv = 16;
  p.scale = 0.25;
  const Tensor q = test::random_tensor(g, {1, 6, p.nq, 16}, DType::f32, 2),
               k = test::random_tensor(g, {1, 3, p.nk, 16}, DType::f32, 2),
               v = test::random_tensor(g, {1, 3, p.nk, 16});
  Inputs x{q.view, k.view, v.view, p, true, {}, {}};
  x.score.softcap = 20;
  const auto run = [&](const Plan& plan, const Inputs& in) {
    Tensor out = make_tensor(DType::f32, {1, in.problem.heads, p.nq, 16});
    RunOptions options;
    options.impl = "ref";  // in fp64: only the pairs can differ
    attend(plan, in.q, in.k, in.v, {out.view, {}, {}}, options);
    return out;
  };
  EXPECT_EQ(refusal(profile, 3, x), "");
  EXPECT_NE(refusal(profile, 4, x), "");
  const Tensor got = run(make_plan(profile, 3, x, {2, nullptr}), x);
  for (int64_t h = 0; h < 6; ++h) {
    Inputs one = x;
    one.q = head(q, h), one.k = head(k, h / 2), one.v = head(v, h / 2);
    one.problem.heads = one.problem.kv_heads = 1;
    const Tensor want =
        run(make_plan(parse_method(specs[size_t(chosen[size_t(h)])]), one, {1, nullptr}), one);
    for (int64_t i = 0; i < p.nq; ++i)
      for (int64_t c = 0; c < 16; ++c)
        ASSERT_NEAR(reinterpret_cast<const float*>(got.view.at(0, h, i))[c],
                    reinterpret_cast<const float*>(want.view.at(0, 0, i))[c], 2e-6)
            << h << " " << i << " " << c;
  }
}

// Heads of one KV head whose thresholds differ are planned together: one estimate, the same lists.
TEST(Profile, ANumberTakenHeadByHeadPlansThemTogether) {
  Rng g(6);
  const Profile profile = load_profile(write_profile(
      R"({"regard_profile": 1, "methods": ["xattention:block=16,stride=4,threshold=0.5",
          "xattention:block=16,stride=4,threshold=0.95", "xattention:block=16,stride=4",
          "xattention:block=16,stride=8,threshold=0.5"], "layers": {"0": [0, 1, 2, 0, 3, 1]}})"));
  Problem p;
  p.heads = 6, p.kv_heads = 2, p.nq = 64, p.nk = 192, p.offset = 128, p.dk = p.dv = 16;
  p.scale = 0.25;
  const Tensor q = test::random_tensor(g, {1, 6, p.nq, 16}, DType::f32, 2),
               k = test::random_tensor(g, {1, 2, p.nk, 16}, DType::f32, 2);
  const Inputs x{q.view, k.view, k.view, p, true, {}, {}};
  Trace trace;
  const Plan together = make_plan(profile, 0, x, {2, &trace});
  const IndexList& got = *together.branches[0].cover.list;
  for (int64_t h = 0; h < 6; ++h) {
    Inputs one = x;
    one.q = head(q, h), one.k = one.v = head(k, h / 3);
    one.problem.heads = one.problem.kv_heads = 1;
    const Method& method = profile.methods[size_t(profile.layers.at(0)[size_t(h)])];
    const Plan apart = make_plan(method, one, {1, nullptr});
    const IndexList& want = *apart.branches[0].cover.list;
    ASSERT_EQ(got.rows, want.rows);
    for (int64_t r = 0; r < got.rows; ++r) {
      const int64_t a = got.row_id(0, h, r, 6), b = want.row_id(0, 0, r, 1);
      EXPECT_EQ(
          std::vector(got.index.begin() + got.start[a], got.index.begin() + got.start[a + 1]),
          std::vector(want.index.begin() + want.start[b], want.index.begin() + want.start[b + 1]))
          << h << " " << r;
    }
  }
}

TEST(Profile, BadFilesAreRefused) {
  const auto error = [](const std::string& text) -> std::string {
    try {
      load_profile(write_profile(text));
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_NE(error("{").find("no profile"), std::string::npos);
  EXPECT_NE(error("{\"regard_profile\": 2}").find("no profile"), std::string::npos);
  EXPECT_NE(error(R"({"regard_profile": 1})").find("methods"), std::string::npos);
  EXPECT_NE(error(R"({"regard_profile": 1, "methods": ["denze"], "layers": {}})").find("denze"),
            std::string::npos);
  EXPECT_NE(
      error(R"({"regard_profile": 1, "methods": ["dense"], "layers": {"x": [0]}})").find("'x'"),
      std::string::npos);
  EXPECT_NE(error(R"({"regard_profile": 1, "methods": ["dense"], "layers": {"0": [1]}})")
                .find("no index"),
            std::string::npos);
  EXPECT_THROW(load_profile("/nowhere/p.json"), Error);
}

}  // namespace
}  // namespace regard
