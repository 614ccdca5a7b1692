// SmolLM2-135M-Instruct through the plug-in, in this process: the same tokens with llama.cpp's own
// attention, with Regard's, and with methods.
//
// The yardstick for "the same" is llama.cpp itself: its two attention paths (with and without flash
// attention) round differently and so disagree a little. Regard may differ from either by no more
// than twice as much as they do from one another.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "plugin_model.h"
#include "regard/method.h"

namespace regard::ggml {
namespace {

struct Difference {
  double kl = 0;    // mean over positions, in nats
  double top1 = 0;  // share of positions with the same best token
};

double log_sum(const std::vector<float>& row) {
  const float top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float x : row) sum += std::exp(double(x) - top);
  return top + std::log(sum);
}

Difference difference(const Logits& a, const Logits& b) {
  Difference d;
  EXPECT_EQ(a.size(), b.size());
  EXPECT_FALSE(a.empty());
  for (size_t n = 0; n < std::min(a.size(), b.size()); ++n) {
    const double za = log_sum(a[n]), zb = log_sum(b[n]);
    for (size_t c = 0; c < a[n].size(); ++c)
      d.kl += std::exp(a[n][c] - za) * ((a[n][c] - za) - (b[n][c] - zb)) / double(a.size());
    const auto best = [](const std::vector<float>& r) {
      return std::max_element(r.begin(), r.end()) - r.begin();
    };
    d.top1 += double(best(a[n]) == best(b[n])) / double(a.size());
  }
  return d;
}

// llama.cpp alone: with flash attention, without it, and how far these are apart.
struct Own {
  Logits flash, plain;
  Difference apart;
};
const Own& own() {
  static const Own o = [] {
    const With off(Mode::off);
    Own r;
    r.flash = prefill(open().get());
    r.plain = prefill(open({.flash = false}).get());
    r.apart = difference(r.plain, r.flash);
    return r;
  }();
  return o;
}

void expect_same(const Logits& ours) {
  const Difference d = difference(own().plain, ours);
  EXPECT_LE(d.kl, 2 * own().apart.kl);
  EXPECT_GE(d.top1, 1 - 2 * (1 - own().apart.top1) - 1.0 / double(ours.size()));
  std::printf("  KL %.2e, top-1 %.4f; llama.cpp's two paths: %.2e, %.4f\n", d.kl, d.top1,
              own().apart.kl, own().apart.top1);
}

TEST(PluginModel, ExactIsAsNearAsLlamaCppIsToItself) {
  Seen seen;
  const With exact(Mode::exact, "", &seen);
  expect_same(prefill(open().get()));
  ASSERT_EQ(seen.nodes.size(), 2u * kLayers);
  for (int n = 0; n < 2 * kLayers; ++n) {
    const Node& node = seen.nodes[n];
    EXPECT_EQ(node.layer, n % kLayers);
    EXPECT_EQ(node.offset, n < kLayers ? 0 : 512);
    EXPECT_EQ(node.nq, n < kLayers ? 512 : kTokens - 512);
    EXPECT_EQ(node.nk, n < kLayers ? 512 : kTokens) << "unused cells of the cache are cut off";
    EXPECT_GT(node.seconds, node.plan_seconds);
    EXPECT_DOUBLE_EQ(seen.density[n], 1);
  }
}

TEST(PluginModel, GgmlsOwnKernelFromInsideGivesTheSameBits) {
  Seen seen;
  const With ggml(Mode::ggml, "", &seen);
  EXPECT_EQ(prefill(open().get()), own().flash);
  ASSERT_EQ(seen.nodes.size(), 2u * kLayers);
  EXPECT_GT(seen.nodes[0].seconds, 0);
}

TEST(PluginModel, OffLeavesEverythingToLlamaCpp) {
  Seen seen;
  const With off(Mode::off, "", &seen);
  EXPECT_EQ(prefill(open().get()), own().flash);
  EXPECT_TRUE(seen.nodes.empty());
}

TEST(PluginModel, DecodeGoesOnFromPrefill) {
  Seen seen;
  const With exact(Mode::exact, "", &seen);
  const Context ctx = open();
  decode(ctx.get(), tokens(0, kTokens - 40));
  seen.nodes.clear();
  Logits steps;
  for (int n = kTokens - 40; n < kTokens; ++n)
    for (auto& row : decode(ctx.get(), tokens(n, n + 1))) steps.push_back(row);
  ASSERT_EQ(seen.nodes.size(), 40u * kLayers);
  EXPECT_EQ(seen.nodes[0].nq, 1);
  EXPECT_EQ(seen.nodes[0].nk, kTokens - 39);
  EXPECT_EQ(seen.nodes[0].offset, kTokens - 40);
  // The same positions as the last ten of the whole prefill.
  const Logits tail(own().plain.end() - int(steps.size()), own().plain.end());
  const Difference d = difference(tail, steps);
  EXPECT_EQ(steps.size(), 10u);
  EXPECT_LE(d.kl, 4 * own().apart.kl) << "ten positions vary more than all do";
  EXPECT_GE(d.top1, 0.9);
}

TEST(PluginModel, QuantisedCache) {
  constexpr int kCount = 300;
  Logits theirs;
  {
    const With off(Mode::off);
    theirs = prefill(open({.cache = GGML_TYPE_Q8_0}).get(), kCount);
  }
  const With exact(Mode::exact);
  const Difference d = difference(theirs, prefill(open({.cache = GGML_TYPE_Q8_0}).get(), kCount));
  // ggml also rounds the queries to 8 bits here, so the paths differ more than with f16; how much
  // 8 bits cost is what the distance between its f16 and q8_0 caches says.
  const Logits plain(own().plain.begin(), own().plain.begin() + int(theirs.size()));
  EXPECT_LE(d.kl, 2 * difference(plain, theirs).kl);
}

TEST(PluginModel, MethodRunsWhereItsAssumptionsHold) {
  Seen seen;
  const With method(Mode::method, "xattention:threshold=0.8,block=64,stride=8", &seen);
  const Context ctx = open();
  const Difference d = difference(own().plain, prefill(ctx.get()));
  EXPECT_GT(d.kl, 2 * own().apart.kl) << "a sparse method leaves something out";
  EXPECT_LT(d.kl, 1) << "but not everything";
  EXPECT_EQ(seen.reasons, (std::map<std::string, int>{{"", 2 * kLayers}}));
  EXPECT_LT(*std::min_element(seen.density.begin(), seen.density.end()), 0.9);
  decode(ctx.get(), tokens(kTokens, kTokens + 1));
  EXPECT_EQ(seen.reasons["fewer than 64 queries"], kLayers);
}

// On a strip of queries against a cache too; the catalogue's tests do this for every method.
TEST(PluginModel, DenseTwinIsExact) {
  const With method(Mode::method, "xattention:" + find_method("xattention").twin);
  expect_same(prefill(open().get()));
}

// Two texts side by side, in one cache or in two: neither may see the other.
void two_sequences(bool unified, const std::set<std::string>& reasons) {
  std::vector<Item> both;
  for (int n = 0; n < 200; ++n)
    for (int s = 0; s < 2; ++s)
      both.push_back({program().tokens[700 * s + n], n, s, n % kStep == 0});
  Logits alone;
  {
    const With off(Mode::off);
    alone = decode(open({.flash = false, .sequences = 2, .unified = unified}).get(), both);
  }
  Seen seen;
  const With method(Mode::method, "a_shape:n_local=64,n_init=4", &seen);
  const Difference d =
      difference(alone, decode(open({.sequences = 2, .unified = unified}).get(), both));
  EXPECT_LE(d.kl, 2 * own().apart.kl);
  std::set<std::string> found;
  for (const auto& [reason, count] : seen.reasons) found.insert(reason);
  EXPECT_EQ(found, reasons);
}

TEST(PluginModel, TwoSequencesInOneCache) {
  two_sequences(true, {"cells not of one sequence in order"});
}

TEST(PluginModel, TwoSequencesInTwoCaches) { two_sequences(false, {"several sequences"}); }

TEST(PluginModel, ModeChangesAtTheNextGraph) {
  const Context ctx = open();
  Seen seen;
  {
    const With exact(Mode::exact, "", &seen);
    decode(ctx.get(), tokens(0, 64));
  }
  EXPECT_EQ(seen.nodes.size(), size_t(kLayers));
  const Logits off = decode(ctx.get(), tokens(64, 128));  // a graph that named the plug-in or not
  EXPECT_EQ(seen.nodes.size(), size_t(kLayers));
  EXPECT_EQ(off.size(), 16u);
}

TEST(PluginModel, BadMethodIsRefusedAndLeavesTheOldOne) {
  Seen seen;
  const With exact(Mode::exact, "", &seen);
  try {
    program().control->configure(Mode::method, "xatention", 2);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("xattention"), std::string::npos) << e.what();
  }
  EXPECT_THROW(program().control->configure(Mode::exact, "", -1), Error);
  decode(open().get(), tokens(0, 64));
  EXPECT_EQ(seen.reasons, (std::map<std::string, int>{{"", kLayers}}));
}

// An exception from inside a node must reach the caller as a status, not as an exception.
TEST(PluginModel, FailureIsAStatus) {
  const With exact(Mode::exact);
  program().control->observe([](const Node&) { throw Error("thrown on purpose by a test"); });
  const Context ctx = open();
  llama_batch batch = llama_batch_get_one(program().tokens.data(), 8);
  EXPECT_NE(llama_decode(ctx.get(), batch), 0);
}

}  // namespace
}  // namespace regard::ggml
