// Specs, values, refusals, the catalogue.
#include "regard/method.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace regard {
namespace {

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string spec_error(const std::string& spec) {
  return error_of([&] { parse_method(spec); });
}

TEST(Method, CatalogueIsSortedAndComplete) {
  const auto& all = methods();
  ASSERT_FALSE(all.empty());
  for (size_t n = 0; n < all.size(); ++n) {
    const Record& r = *all[n];
    if (n) {
      EXPECT_LT(all[n - 1]->name, r.name);
    }
    for (const std::string* text :
         {&r.name, &r.title, &r.family, &r.paper, &r.summary, &r.when, &r.cost})
      EXPECT_FALSE(text->empty()) << r.name;
    EXPECT_GT(r.year, 2000) << r.name;
    if (!r.twin.empty()) {
      EXPECT_NO_THROW(parse_method(r.name + ":" + r.twin)) << r.name;
    }
    for (const double value : r.sweep.values) {
      EXPECT_NO_THROW(parse_method(fmt::format("{}:{}={}", r.name, r.sweep.param, value)))
          << r.name;
    }
    EXPECT_EQ(r.sweep.param.empty(), r.sweep.values.empty()) << r.name;
    for (const Param& p : r.params) {
      EXPECT_FALSE(p.doc.empty());
      if (std::holds_alternative<Tensor>(p.value)) continue;
      EXPECT_NO_THROW(make_method(r.name, {{p.name, p.value}}))
          << r.name << " " << p.name;  // defaults are in range
    }
  }
}

TEST(Method, SpecsComeBack) {
  for (const char* spec : {"dense", "xattention:threshold=0.85,block=64", "sink_bias:logit=-inf",
                           "alibi:strength=0.5,rule=geometric"})
    EXPECT_EQ(parse_method(spec).spec(), spec);
  EXPECT_EQ(parse_method(" a_shape : n_local = 1e9 , n_init=4").spec(),
            "a_shape:n_init=4,n_local=1000000000");
  EXPECT_EQ(make_method("xattention", {{"threshold", int64_t(1)}, {"block", 64.0}}).spec(),
            "xattention:threshold=1,block=64");
}

TEST(Method, ErrorsNameWhatCameAndWhatIsAccepted) {
  EXPECT_EQ(spec_error("xatention"),
            "method 'xatention': unknown; nearest: xattention, rettention");
  EXPECT_NE(spec_error("vertical").find("nearest: vertical_slash"), std::string::npos);
  EXPECT_NE(spec_error("").find("unknown"), std::string::npos);
  EXPECT_EQ(spec_error("a_shape:locl=3"),
            "method a_shape: no parameter 'locl'; accepted: n_init, n_local, n_last");
  EXPECT_EQ(spec_error("dense:x=1"), "method dense: no parameter 'x'; it has none");
  EXPECT_EQ(spec_error("a_shape:n_local=0"),
            "method a_shape: n_local=0; accepted: a whole number from 1 to 1e+12");
  EXPECT_EQ(spec_error("a_shape:n_local=2.5"),
            "method a_shape: n_local=2.5; accepted: a whole number from 1 to 1e+12");
  EXPECT_EQ(spec_error("a_shape:n_local=12x"),
            "method a_shape: n_local=12x; accepted: a whole number from 1 to 1e+12");
  EXPECT_EQ(spec_error("xattention:threshold=nan"),
            "method xattention: threshold=nan; accepted: a number from 0 to 2");
  EXPECT_EQ(spec_error("xattention:threshold="),
            "method xattention: threshold=(nothing); accepted: a number from 0 to 2");
  EXPECT_EQ(spec_error("xattention:forced=x"),
            "method xattention: forced=x; accepted: paper, code");
  EXPECT_EQ(spec_error("xattention:block=64,block=32"),
            "method xattention: parameter 'block' is given twice");
  EXPECT_EQ(spec_error("block_mask:mask=3"),
            "method block_mask: mask=3; accepted: @file.npy or @file.safetensors#name");
  for (const char* bad : {"a_shape:", "a_shape:n_local", "a_shape:n_local=3,", "a_shape:=3"})
    EXPECT_NE(spec_error(bad).find("accepted:"), std::string::npos) << bad;
  EXPECT_NE(error_of([] {
              make_method("a_shape", {{"n_local", true}});
            }).find("n_local=true"),
            std::string::npos);
}

TEST(Method, RefusalsSayWhy) {
  std::vector<float> data(64 * 8);
  Inputs x;
  x.q = x.k = x.v = contiguous(data.data(), DType::f32, {1, 1, 64, 8});
  x.problem = Problem::of_views(x.q, x.k, x.v);
  EXPECT_EQ(refusal(parse_method("a_shape"), x), "");
  x.causal = false;
  EXPECT_EQ(refusal(parse_method("a_shape"), x), "needs causal attention");
  EXPECT_EQ(error_of([&] { make_plan(parse_method("a_shape"), x, {}); }),
            "method a_shape: needs causal attention");
  EXPECT_NE(refusal(parse_method("block_mask"), x).find("needs the tensor 'mask'"),
            std::string::npos);
  x.problem.cu_q = x.problem.cu_k = {0, 32, 64};
  EXPECT_EQ(refusal(parse_method("xattention"), x), "needs one sequence, not packed ones");
}

TEST(Method, TheModelsScoreAndNormFillWhatTheRecipeLeft) {
  std::vector<float> data(64 * 8);
  Inputs x;
  x.q = x.k = x.v = contiguous(data.data(), DType::f32, {1, 1, 64, 8});
  x.problem = Problem::of_views(x.q, x.k, x.v);
  x.score.softcap = 30;
  x.score.alibi = {0.25f};
  x.norm = {.kind = NormKind::softmax_sink, .sink = {1.5f}};
  for (const char* spec : {"a_shape", "xattention", "vertical_slash", "longformer"})
    for (const Branch& b : make_plan(parse_method(spec), x, {}).branches) {
      EXPECT_TRUE(b.rule.causal);
      EXPECT_EQ(b.score.softcap, 30);
      EXPECT_EQ(b.score.alibi, x.score.alibi);
      EXPECT_EQ(b.norm.sink, x.norm.sink);
    }
  EXPECT_EQ(make_plan(parse_method("softcap:cap=7"), x, {}).branches[0].score.softcap, 7);
  EXPECT_EQ(make_plan(parse_method("sink_bias:logit=3"), x, {}).branches[0].norm.sink[0], 3);
  EXPECT_TRUE(make_plan(parse_method("a_shape"), x, {}).lowered);
}

TEST(Method, AnApplicationAddsItsOwn) {
  struct None {};
  const auto plan = +[](const Ctx&, const Inputs& x, const None&) { return Plan::all(x.problem); };
  add_method(recipe<None>({.name = "mine", .title = "Mine"}, plan, {}));
  EXPECT_EQ(find_method("mine").title, "Mine");
  EXPECT_NE(error_of([&] { add_method(recipe<None>({.name = "dense"}, plan, {})); }).find("taken"),
            std::string::npos);
  EXPECT_NE(error_of([&] { add_method(recipe<None>({.name = "No Name"}, plan, {})); }).find("a-z"),
            std::string::npos);
}

}  // namespace
}  // namespace regard
