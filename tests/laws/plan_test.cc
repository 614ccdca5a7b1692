// Laws of plans: bits are a set algebra, lowering loses nothing, counts and texts agree with the
// pairs.
#include "regard/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "random_plan.h"
#include "regard/status.h"

namespace regard {
namespace {

using test::Rng;

// The predicate of plan.h, pair by pair: the oracle of this file.
bool allowed(const Plan& plan, const Branch& br, int64_t b, int64_t h, int64_t i, int64_t j,
             bool cover = true) {
  const Problem& p = plan.problem;
  int64_t pos_q = i + p.offset, begin = 0, end = p.nk;
  for (size_t s = 0; s + 1 < p.cu_q.size(); ++s)
    if (i >= p.cu_q[s] && i < p.cu_q[s + 1]) {
      begin = p.cu_k[s], end = p.cu_k[s + 1];
      pos_q = end - (p.cu_q[s + 1] - i);
    }
  const int64_t block = br.source.kind == SourceKind::pooled ? br.source.block : 1;
  const bool given = br.source.kind == SourceKind::given;
  const int64_t pos_k =
      given ? j * br.source.stride + br.source.block - 1 : std::min((j + 1) * block, p.nk) - 1;
  if (pos_k < begin || pos_k >= end) return false;
  if (br.rule.causal && pos_k > pos_q) return false;
  const auto outside = [](const Window& w, int64_t key, int64_t query) {
    if (w.right >= 0 && key > query + w.right) return true;
    return w.left >= 0 && key < query - w.left && key >= w.sink;
  };
  if (outside(br.rule.window, pos_k, pos_q)) return false;
  if (br.rule.mask && !br.rule.mask->get(b, h, i, j)) return false;
  if (!cover) return true;
  if (br.cover.kind == CoverKind::band && !br.order) return !outside(br.cover.band, pos_k, pos_q);
  const auto place = [&](const Permutation* o, int64_t token) {
    if (!o) return token;
    const uint32_t* row = o->row(b, h, p.heads);
    return int64_t(std::find(row, row + o->n, uint32_t(token)) - row);
  };
  i = place(br.order.queries.get(), i), j = place(br.order.keys.get(), j);
  if (br.cover.kind == CoverKind::band) return !outside(br.cover.band, j, i + p.offset);
  if (!br.cover.list) return true;
  const IndexList& l = *br.cover.list;
  const int64_t id = l.row_id(b, h, i / l.bq, p.heads);
  for (int64_t e = l.start[size_t(id)]; e < l.start[size_t(id) + 1]; ++e)
    if (int64_t(l.index[size_t(e)] & ~IndexList::kBoundary) == j / l.bk) return true;
  return false;
}

// Half of the plans of one branch have permuted axes, some share lists.
Plan any_plan(Rng& g, const Problem& p) {
  Plan plan = test::random_plan(g, p);
  if (test::coin(g, 0.3)) test::random_sharing(g, &plan);
  if (test::coin(g)) test::random_order(g, &plan);
  return plan;
}

void for_each_pair(const Plan& plan, auto&& visit) {
  const Problem& p = plan.problem;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i)
        for (int64_t j = 0; j < source_keys(p, plan.branches[0]); ++j) visit(b, h, i, j);
}

TEST(TileBits, AreASetAlgebra) {
  Rng g(10);
  for (int n = 0; n < 100; ++n) {
    const int64_t rows = test::pick(g, 1, 9), cols = test::pick(g, 1, 150);
    const auto make = [&] {
      TileBits t(1, 2, rows, cols);
      for (int64_t h = 0; h < 2; ++h)
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < cols; ++c) t.set(0, h, r, c, test::coin(g));
      return t;
    };
    const TileBits a = make(), b = make(), c = make();
    TileBits all(1, 2, rows, cols), none(1, 2, rows, cols);
    all.fill(true);
    EXPECT_EQ(all.count(), 2 * rows * cols);
    EXPECT_TRUE((a | b) == (b | a));
    EXPECT_TRUE((a & (b | c)) == ((a & b) | (a & c)));
    EXPECT_TRUE((a - b) == (a & (all - b)));
    EXPECT_TRUE((a | none) == a);
    EXPECT_TRUE((a & all) == a);
    EXPECT_TRUE((a - a) == none);
    EXPECT_EQ((a | b).count() + (a & b).count(), a.count() + b.count());
  }
}

TEST(TileBits, BroadcastOverHeads) {
  TileBits shared(1, 1, 2, 70), heads(1, 3, 2, 70);
  shared.set(0, 0, 1, 69);
  heads.set(0, 2, 0, 3);
  const TileBits both = shared | heads;
  EXPECT_EQ(both.heads, 3);
  EXPECT_EQ(both.count(), 4);
  EXPECT_TRUE(both.get(0, 0, 1, 69) && both.get(0, 1, 1, 69) && both.get(0, 2, 0, 3));
  EXPECT_THROW(shared | TileBits(1, 1, 2, 71), Error);
}

TEST(Plan, ExpandIsThePredicate) {
  Rng g(11);
  for (int n = 0; n < 300; ++n) {
    const Plan plan = any_plan(g, test::random_problem(g));
    plan.validate();
    const BitMask bits = expand(plan, 0);
    for_each_pair(plan, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      ASSERT_EQ(bits.get(b, h, i, j), allowed(plan, plan.branches[0], b, h, i, j))
          << describe(plan) << " at " << b << " " << h << " " << i << " " << j;
    });
  }
}

TEST(Plan, PackedSequencesNeverMix) {
  Rng g(12);
  for (int n = 0; n < 100; ++n) {
    Problem p = test::random_problem(g);
    const int64_t cut_q = test::pick(g, 0, p.nq), cut_k = test::pick(g, 0, p.nk);
    p.cu_q = {0, cut_q, cut_q, p.nq};
    p.cu_k = {0, cut_k, cut_k, p.nk};
    Plan plan = test::coin(g) ? Plan::all(p) : Plan::band(p, 5, -1);
    plan.causal(test::coin(g)).validate();
    const BitMask bits = expand(plan, 0);
    for_each_pair(plan, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      ASSERT_EQ(bits.get(b, h, i, j), allowed(plan, plan.branches[0], b, h, i, j));
      if ((i < cut_q) != (j < cut_k)) {
        ASSERT_FALSE(bits.get(b, h, i, j));
      }
    });
  }
}

TEST(Plan, LoweringKeepsThePairsAndMarksTheBoundary) {
  Rng g(13);
  for (int n = 0; n < 300; ++n) {
    const Plan before = any_plan(g, test::random_problem(g));
    Plan after = before;
    after.lower().validate();
    EXPECT_EQ(expand(before, 0).words, expand(after, 0).words);
    const Branch& br = after.branches[0];
    EXPECT_FALSE(br.order && br.cover.kind == CoverKind::band);
    if (!br.cover.list) continue;
    const IndexList& l = *br.cover.list;
    const Problem& p = after.problem;
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t r = 0; r < l.rows; ++r) {
          const int64_t id = l.row_id(b, h, r, p.heads);
          for (int64_t e = l.start[size_t(id)]; e < l.start[size_t(id) + 1]; ++e) {
            if (l.index[size_t(e)] & IndexList::kBoundary) continue;
            const int64_t col = l.index[size_t(e)];
            const auto token = [&](const auto& o, int64_t n) {
              return o ? int64_t(o->row(b, h, p.heads)[n]) : n;
            };
            for (int64_t i = r * l.bq; i < std::min((r + 1) * l.bq, p.nq); ++i)
              for (int64_t j = col * l.bk; j < std::min((col + 1) * l.bk, source_keys(p, br)); ++j)
                ASSERT_TRUE(
                    allowed(after, br, b, h, token(br.order.queries, i), token(br.order.keys, j)))
                    << "an interior tile needs no mask";
          }
        }
    Plan again = after;
    again.lowered = false;
    EXPECT_EQ(again.lower().branches[0].cover.list->index, l.index) << "idempotent";
  }
}

TEST(Plan, CostCountsPairs) {
  Rng g(14);
  for (int n = 0; n < 300; ++n) {
    const Plan plan = any_plan(g, test::random_problem(g));
    const Branch& br = plan.branches[0];
    if (br.source.kind != SourceKind::raw) continue;
    double pairs = 0, exact = 0;
    std::vector<double> heads(size_t(plan.problem.heads));
    for_each_pair(plan, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      const bool on = allowed(plan, br, b, h, i, j);
      pairs += on;
      heads[size_t(h)] += on;
      exact += allowed(plan, br, b, h, i, j, false);
    });
    const Cost c = cost(plan);
    EXPECT_EQ(c.pairs, pairs);
    EXPECT_EQ(c.causal_pairs, exact);
    EXPECT_EQ(c.head_pairs, heads);
    EXPECT_GE(c.tile_pairs, br.rule.mask ? 0 : pairs);
  }
}

TEST(Plan, CoverageIsTheShareOfEachCell) {
  Rng g(15);
  for (int n = 0; n < 60; ++n) {
    const Plan plan = any_plan(g, test::random_problem(g));
    const Problem& p = plan.problem;
    const Branch& br = plan.branches[0];
    if (br.source.kind != SourceKind::raw) continue;
    const int64_t cq = test::pick(g, 1, 30), ck = test::pick(g, 1, 80);
    const int64_t h = test::pick(g, 0, p.heads - 1);
    const std::vector<float> got = coverage(plan, p.batch - 1, h, cq, ck);
    const int64_t cols = (p.nk + ck - 1) / ck;
    for (size_t cell = 0; cell < got.size(); ++cell) {
      double read = 0, exact = 0;
      const int64_t r = int64_t(cell) / cols, c = int64_t(cell) % cols;
      for (int64_t i = r * cq; i < std::min((r + 1) * cq, p.nq); ++i)
        for (int64_t j = c * ck; j < std::min((c + 1) * ck, p.nk); ++j) {
          read += allowed(plan, br, p.batch - 1, h, i, j);
          exact += allowed(plan, br, p.batch - 1, h, i, j, false);
        }
      ASSERT_FLOAT_EQ(got[cell], exact > 0 ? float(read / exact) : -1.0f);
    }
  }
}

TEST(Plan, JsonRoundTripKeepsEveryField) {
  Rng g(16);
  for (int n = 0; n < 150; ++n) {
    const Problem p = test::random_problem(g, 30);
    Plan plan = any_plan(g, p);
    const int64_t keys = source_keys(p, plan.branches[0]);
    Score s;
    s.softcap = float(test::pick(g, 0, 2)) * 15;
    s.bias = test::random_tensor(g, {1, p.heads, p.nq, keys});
    s.key_bias = test::random_tensor(g, {p.batch, 1, 1, keys});
    s.bias_scale.assign(size_t(p.heads), 0.5f);
    plan.score(s);
    Norm norm;
    norm.kind = NormKind::softmax_sink;
    norm.sink.assign(size_t(p.heads), -std::numeric_limits<float>::infinity());
    plan.norm(norm);
    const Plan back = plan_from_json(to_json(plan));
    EXPECT_EQ(to_json(back), to_json(plan));
    EXPECT_EQ(hash(back), hash(plan));
    EXPECT_EQ(expand(back, 0).words, expand(plan, 0).words);
    Plan other = plan;
    other.branches[0].score.softcap += 1;
    EXPECT_NE(hash(other), hash(plan));
  }
  EXPECT_THROW(plan_from_json("{"), Error);
  EXPECT_THROW(plan_from_json("{\"format\":\"other\"}"), Error);
}

TEST(Plan, OrderChangesNothingButTheCover) {
  Rng g(17);
  for (int n = 0; n < 100; ++n) {
    Plan plan = test::random_plan(g, test::random_problem(g));
    if (plan.branches[0].cover.kind != CoverKind::all) continue;
    const auto before = expand(plan, 0).words;
    test::random_order(g, &plan);
    EXPECT_EQ(expand(plan, 0).words, before);
    EXPECT_EQ(cost(plan).pairs, cost(plan.order({})).pairs);
  }
}

TEST(Plan, BranchesUnderOneSoftmaxAreDisjointByToken) {
  Rng g(18);
  int overlaps = 0;
  for (int n = 0; n < 100; ++n) {
    const Problem p = test::random_problem(g, 30);
    const int bq = int(test::pick(g, 1, 8)), bk = int(test::pick(g, 1, 8));
    Plan parts[2];
    for (Plan& part : parts) {
      part = Plan::tiles(p, bq, bk, test::random_bits(g, p, p.nk, bq, bk, 0.1));
      test::random_order(g, &part);
    }
    const Plan both = Plan::same({parts[0], parts[1]});
    const auto a = expand(both, 0).words, b = expand(both, 1).words;
    bool overlap = false;
    for (size_t w = 0; w < a.size(); ++w) overlap |= (a[w] & b[w]) != 0;
    overlaps += overlap;
    if (overlap) {
      EXPECT_THROW(both.validate(), Error);
    } else {
      EXPECT_NO_THROW(both.validate());
    }
  }
  EXPECT_TRUE(overlaps > 10 && overlaps < 90);
}

TEST(Plan, ValidateNamesTheFault) {
  Problem p;
  p.heads = 4, p.kv_heads = 2, p.nq = 20, p.nk = 30, p.dk = p.dv = 8, p.scale = 1, p.offset = 10;
  const auto message = [](const Plan& plan) -> std::string {
    try {
      plan.validate();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const auto has = [](const std::string& s, const char* part) {
    return s.find(part) != std::string::npos;
  };
  TileBits bits(1, 1, 3, 4);
  bits.fill(true);
  EXPECT_EQ(message(Plan::tiles(p, 8, 8, bits)), "");
  EXPECT_TRUE(has(message(Plan::tiles(p, 16, 8, bits)), "need 2 and 4"));
  IndexList bad = *Plan::tiles(p, 8, 8, bits).branches[0].cover.list;
  bad.index[1] = 9;
  Plan out_of_range = Plan::tiles(p, 8, 8, bits);
  out_of_range.branches[0].cover.list = std::make_shared<IndexList>(bad);
  EXPECT_TRUE(has(message(out_of_range), "index 9 in row 0; accepted: below 4"));
  bad.index[1] = 0;
  out_of_range.branches[0].cover.list = std::make_shared<IndexList>(bad);
  EXPECT_TRUE(has(message(out_of_range), "must rise"));
  EXPECT_TRUE(has(message(Plan::band(p, 3, 0).window({1, 1, 0})), "the band or as the rule"));
  EXPECT_TRUE(has(message(Plan::same({Plan::all(p), Plan::band(p, 3, 0)})), "overlap"));
  Plan permuted = Plan::tiles(p, 8, 8, bits);
  const auto with = [&](bool keys, auto&& change) {
    Permutation o;
    o.n = keys ? 30 : 20;
    for (uint32_t t = 0; t < o.n; ++t) o.token.push_back(t);
    change(o);
    Order order;
    (keys ? order.keys : order.queries) = std::make_shared<Permutation>(o);
    return message(permuted.order(order));
  };
  EXPECT_EQ(with(false, [](Permutation&) {}), "");
  EXPECT_TRUE(has(with(false, [](Permutation& o) { o.token[3] = 20; }),
                  "query order: token 20 at place 3; accepted: below 20"));
  EXPECT_TRUE(has(with(true, [](Permutation& o) { o.token[7] = 5; }),
                  "key order: token 5 twice, again at place 7"));
  EXPECT_TRUE(has(with(true, [](Permutation& o) { o.n = 29; }),
                  "key order [1,1,29] of 30 tokens; accepted: [1|1,1|2|4,30]"));
  EXPECT_TRUE(has(with(false, [](Permutation& o) { o.heads = 2; }), "accepted: [1|1,1|4,20]"));
  IndexList shared = *Plan::tiles(p, 8, 8, bits).branches[0].cover.list;
  shared.list_of = {0, 1};
  permuted = Plan::tiles(p, 8, 8, bits);
  permuted.branches[0].cover.list = std::make_shared<IndexList>(shared);
  EXPECT_TRUE(has(message(permuted), "2 rows share lists, accepted: 3"));
  shared.list_of = {0, 1, 3};
  permuted.branches[0].cover.list = std::make_shared<IndexList>(shared);
  EXPECT_TRUE(has(message(permuted), "a row reads list 3; accepted: below 3"));
  Score s;
  s.alibi = {1, 2};
  EXPECT_TRUE(has(message(Plan::all(p).score(s)), "one a query head, 4"));
  Norm n;
  n.kind = NormKind::softmax_sink;
  EXPECT_TRUE(has(message(Plan::all(p).norm(n)), "sink logits"));
  EXPECT_TRUE(has(message(Plan::gated({Plan::all(p), Plan::all(p)}, {})), "gate none"));
  p.kv_heads = 3;
  EXPECT_TRUE(has(message(Plan::all(p)), "multiple of KV heads"));
}

TEST(Plan, SvgShowsEveryKeptCell) {
  Problem p;
  p.nq = p.nk = 256, p.dk = p.dv = 8, p.scale = 1;
  TileBits bits(1, 1, 4, 4);
  for (int r = 0; r < 4; ++r) bits.set(0, 0, r, r);
  const std::string picture = svg(Plan::tiles(p, 64, 64, bits), 0);
  size_t cells = 0;
  for (size_t at = 0; (at = picture.find("<rect x=", at)) != std::string::npos; ++at) ++cells;
  EXPECT_EQ(cells, 4 * 32 * 32);  // 256 tokens at 2 a cell: 32 x 32 cells a tile
}

}  // namespace
}  // namespace regard
