// The lab's parts that need no model: the journal, the recall document and its scores, the list of
// rows, the choice by head.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "cli/frontier.h"
#include "cli/journal.h"
#include "cli/recall.h"
#include "cli/search_calibrate.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

std::string fresh(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  std::remove(path.c_str());
  return path;
}
std::string content(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

TEST(Journal, KeepsWholeLinesAndDropsAHalfOne) {
  const std::string path = fresh("rows.jsonl");
  {
    Journal j(path);
    EXPECT_TRUE(j.lines().empty());
    j.append({{"name", "a"}});
    j.append({{"name", "b"}, {"x", 0.1}});
    EXPECT_THROW(Journal{path}, Error);  // in use
  }
  const std::string two = content(path);
  std::ofstream(path, std::ios::app) << "{\"name\": \"c";
  {
    Journal j(path);
    ASSERT_EQ(j.lines().size(), 2u);
    EXPECT_EQ(j.lines()[1]["x"], 0.1);
    EXPECT_NE(j.notice().find("dropped"), std::string::npos);
    EXPECT_EQ(content(path), two);
    j.append({{"name", "d"}});
  }
  EXPECT_EQ(Journal(path).lines().size(), 3u);
  EXPECT_EQ(Journal(path).notice(), "");
}

TEST(Journal, RefusesWhatIsNotItsOwn) {
  const std::string path = fresh("bad.jsonl");
  std::ofstream(path) << "{\"a\": 1}\nnot json\n";
  EXPECT_THROW(Journal{path}, Error);
  EXPECT_EQ(content(path), "{\"a\": 1}\nnot json\n");
  EXPECT_THROW(Journal("/nowhere/rows.jsonl"), Error);
  EXPECT_THROW(Journal("/dev/full"), Error);
}

std::vector<int32_t> letters(const std::string& s) { return {s.begin(), s.end()}; }

// One token a byte; the document counts upwards from 1000, so that every token is its own place.
RecallTask task(int64_t length, uint64_t seed) {
  std::vector<int32_t> document;
  for (int64_t i = 0; i < length; ++i) document.push_back(int32_t(1000 + i));
  return recall_task(document, letters, seed);
}

TEST(Recall, CopiesAreCopiesAtTheirDistance) {
  const RecallTask t = task(8192, 0);
  ASSERT_EQ(t.why_not, "");
  ASSERT_EQ(t.tokens.size(), 8192u);
  ASSERT_EQ(t.copies.size(), 7u);
  for (size_t k = 0; k < t.copies.size(); ++k) {
    EXPECT_EQ(t.copies[k].distance, int64_t(1024 * (k + 1)));
    EXPECT_EQ(t.copies[k].last - t.copies[k].first, 96);  // 128 tokens, the first quarter unscored
    for (int64_t i = t.copies[k].first; i < t.copies[k].last; ++i) {
      const size_t at = size_t(t.positions[size_t(i)] + 1);
      EXPECT_EQ(t.next[size_t(i)], t.tokens[at]);
      EXPECT_EQ(t.tokens[at], t.tokens[at - size_t(t.copies[k].distance)]);
      // Without first copies the second stays, and nothing else is like it.
      EXPECT_EQ(t.without[at], t.tokens[at]);
      EXPECT_EQ(std::count(t.without.begin(), t.without.end(), t.tokens[at]), 1);
    }
  }
}

TEST(Recall, NeedlesAreAskedForWhatTheyHold) {
  for (const int64_t length : {2048, 3001, 8192}) {
    const RecallTask t = task(length, 7);
    ASSERT_EQ(t.needles.size(), 4u) << length;
    std::set<std::string> codes;
    for (const RecallTask::Question& q : t.needles) {
      std::string code;
      for (int64_t i = q.first; i < q.last; ++i) {
        const size_t at = size_t(t.positions[size_t(i)] + 1);
        EXPECT_EQ(t.next[size_t(i)], t.tokens[at]);
        EXPECT_EQ(t.tokens[at], t.tokens[at - size_t(q.distance)]);
        code += char(t.tokens[at]);
      }
      EXPECT_EQ(code.size(), 6u);
      EXPECT_TRUE(codes.insert(code).second);
      const std::vector<int32_t> seek = letters(code);
      EXPECT_EQ(
          std::search(t.without.begin(), t.without.end() - length / 8, seek.begin(), seek.end()),
          t.without.end() - length / 8);
    }
    EXPECT_TRUE(std::is_sorted(t.positions.begin(), t.positions.end()));
    EXPECT_EQ(t.without.size(), t.tokens.size());
  }
}

TEST(Recall, FollowsTheSeedAndRefusesShortDocuments) {
  EXPECT_EQ(task(4096, 3).tokens, task(4096, 3).tokens);
  EXPECT_NE(task(4096, 3).tokens, task(4096, 4).tokens);
  EXPECT_NE(task(512, 0).why_not, "");
}

TEST(Recall, LossAndRankAreThoseOfTheLogits) {
  const RecallTask t = task(8192, 0);
  RecallScorer scorer(t, 12000);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> logits(12000);
  double loss = 0;
  int64_t rank = 0;
  const RecallTask::Question asked = t.copies[2];
  for (int64_t i = 0; i < int64_t(t.positions.size()); ++i) {
    for (float& x : logits) x = normal(rng);
    scorer.add(i, logits.data());
    const float right = logits[size_t(t.next[size_t(i)])];
    double sum = 0;
    for (const float x : logits) sum += std::exp(double(x));
    if (i >= asked.first && i < asked.last)
      loss += (std::log(sum) - right) / double(asked.last - asked.first);
    if (i == t.needles[1].first)
      rank = 1 + std::count_if(logits.begin(), logits.end(), [&](float x) { return x > right; });
  }
  const auto r = scorer.result();
  EXPECT_NEAR(r["copies"][2]["loss"].get<double>(), loss, 1e-6);
  EXPECT_EQ(r["needles"][1]["ranks"][0], rank);
}

TEST(Settings, SpecsAreSplitSweptAndRefused) {
  const auto names = [](const std::string& list) {
    std::vector<std::string> out;
    for (const Setting& s : frontier_settings(list, {})) out.push_back(s.spec);
    return out;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names("a_shape:n_init=4,n_local=256,dense"),
            (Names{"a_shape:n_init=4,n_local=256", "dense"}));
  const Names swept = names("xattention:block=64");
  EXPECT_GT(swept.size(), 2u);
  for (const std::string& s : swept) EXPECT_EQ(s.rfind("xattention:block=64,threshold=", 0), 0u);
  EXPECT_EQ(names("dense,dense"), Names{"dense"});
  EXPECT_GT(names("all").size(), 10u);
  for (const char* bad : {"", "xatention", "a_shape:width=3", "xattention:threshold=7", "dense,,"})
    EXPECT_THROW(frontier_settings(bad, {}), Error) << bad;
  EXPECT_EQ(frontier_lengths("8k,2k,2048,600"), (std::vector<int64_t>{600, 2048, 8192}));
  for (const char* bad : {"", "2x", "-4", "2k,", "0", "k"})
    EXPECT_THROW(frontier_lengths(bad), Error) << bad;
}

HeadFacts facts(double seconds, double error, double recall = 0) {
  HeadFacts f;
  f.seconds = f.together = seconds;
  f.error[kPlain] = error * error;
  f.error[kRecall] = recall * recall;
  f.norm[kPlain] = f.norm[kRecall] = 1;
  return f;
}

HeadKind kind(int64_t left) { return {false, left, 0, 0, 0}; }

TEST(Search, BuysTheLeastTimeWithTheErrorItMay) {
  // Errors are shares of both heads' norm, which is 2.
  LayerFacts l;
  l.heads = {{facts(10, 0), facts(10, 0)},
             {facts(4, 0.2), facts(4, 0.01)},
             {facts(6, 0.04), facts(6, 0.5)}};
  l.kinds = {{kind(-1)}, {kind(1)}, {kind(2)}};
  const auto one = [&](double bound, size_t kinds = 4) {
    return assign({{7, l}}, bound, kinds).at(7);
  };
  EXPECT_EQ(one(0.05), (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(one(0.3), (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(one(0), (std::vector<int64_t>{0, 0}));
  // The head that finds things again is wrong only where that is asked for.
  l.heads[1][1] = facts(4, 0.01, 0.4);
  EXPECT_EQ(one(0.05), (std::vector<int64_t>{2, 0}));
  l.heads[1][1] = facts(4, 0.01);
  // A third head stays dense, which makes three kinds with room for two: head 0 loses less by going
  // back to dense than head 1 would.
  l.heads[0].push_back(facts(10, 0));
  l.heads[1].push_back(facts(4, 0.4));
  l.heads[2].push_back(facts(6, 0.5));
  l.heads[2][0].seconds = l.heads[2][0].together = 9;
  EXPECT_EQ(one(0.05, 3), (std::vector<int64_t>{2, 1, 0}));
  EXPECT_EQ(one(0.05, 2), (std::vector<int64_t>{0, 1, 0}));
  EXPECT_EQ(one(0.05, 1), (std::vector<int64_t>{0, 0, 0}));
}

TEST(Search, SpendsTheErrorInTheLayerWhereItBuysMost) {
  LayerFacts cheap, dear;
  cheap.heads = {{facts(10, 0)}, {facts(1, 0.1)}};
  dear.heads = {{facts(10, 0)}, {facts(9, 0.1)}};
  cheap.kinds = dear.kinds = {{kind(-1)}, {kind(1)}};
  const auto both = assign({{0, dear}, {1, cheap}}, 0.08);
  EXPECT_EQ(both.at(0), std::vector<int64_t>{0});
  EXPECT_EQ(both.at(1), std::vector<int64_t>{1});
}

TEST(Search, PlansHeadsOfOneKeyHeadTogetherWhereThatIsCheaper) {
  LayerFacts l;
  l.heads = {{facts(10, 0), facts(10, 0)},
             {facts(5, 0.01), facts(5, 0.01)},
             {facts(4, 0.02), facts(6, 0.02)}};
  l.kinds = {{kind(-1)}, {kind(1)}, {kind(1)}};
  EXPECT_EQ(assign({{0, l}}, 0.1).at(0), (std::vector<int64_t>{2, 1}));
  l.heads[1][0].together = l.heads[1][1].together = 4;
  EXPECT_EQ(assign({{0, l}}, 0.1).at(0), (std::vector<int64_t>{2, 1}));  // each reads its own keys
  l.group = 2;
  EXPECT_EQ(assign({{0, l}}, 0.1).at(0), (std::vector<int64_t>{1, 1}));
}

}  // namespace
}  // namespace regard::cli
