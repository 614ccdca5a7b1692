// Threads of the plug-in: more of them than processors, several contexts in one process, contexts
// in several threads at once. Always the same bits as one context alone.
#include <thread>

#include "plugin_model.h"

namespace regard::ggml {
namespace {

constexpr int kPrompt = 120;
constexpr char kMethod[] = "xattention:threshold=0.8,block=64,stride=8";

TEST(PluginThreads, MoreThanProcessorsChangeNoBit) {
  const int many = 2 * int(std::thread::hardware_concurrency()) + 1;
  for (Mode mode : {Mode::exact, Mode::method}) {
    const With with(mode, mode == Mode::method ? kMethod : "", nullptr, /*threads=*/0);
    const Logits one = prefill(open({.threads = 1}).get(), kPrompt);
    ASSERT_FALSE(one.empty());
    EXPECT_EQ(one, prefill(open({.threads = 2}).get(), kPrompt));
    EXPECT_EQ(one, prefill(open({.threads = many}).get(), kPrompt));
  }
}

TEST(PluginThreads, ContextsInTurnsDoNotDisturbEachOther) {
  const With with(Mode::exact, "", nullptr, 0);
  const Logits alone = prefill(open().get(), kPrompt);
  const Context a = open(), b = open({.cache = GGML_TYPE_Q8_0, .threads = 1}), c = open();
  Logits of_a, of_c;
  const auto add = [](Logits* to, Logits more) {
    for (auto& row : more) to->push_back(std::move(row));
  };
  // In micro-batches of 40: compare with one context that gets the same ones.
  for (int n = 0; n < kPrompt; n += 40) {
    add(&of_a, decode(a.get(), tokens(n, n + 40)));
    decode(b.get(), tokens(n, n + 40, 0, 500));
    if (n > 0) add(&of_c, decode(c.get(), tokens(n - 40, n)));
  }
  add(&of_c, decode(c.get(), tokens(kPrompt - 40, kPrompt)));
  EXPECT_EQ(of_a, of_c);
  EXPECT_EQ(of_a.size(), alone.size());
}

TEST(PluginThreads, ContextsInSeveralThreadsAtOnce) {
  for (Mode mode : {Mode::exact, Mode::method}) {
    const With with(mode, mode == Mode::method ? kMethod : "", nullptr, 0);
    const std::vector<Options> options = {
        {}, {.threads = 1}, {.cache = GGML_TYPE_Q8_0}, {.threads = 5}};
    std::vector<Logits> alone, together(options.size());
    for (const Options& o : options) alone.push_back(prefill(open(o).get(), kPrompt));
    std::vector<std::thread> threads;
    for (size_t n = 0; n < options.size(); ++n)
      threads.emplace_back([&, n] { together[n] = prefill(open(options[n]).get(), kPrompt); });
    for (std::thread& t : threads) t.join();
    for (size_t n = 0; n < options.size(); ++n) EXPECT_EQ(alone[n], together[n]) << n;
  }
}

}  // namespace
}  // namespace regard::ggml
