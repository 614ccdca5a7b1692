// regard run without a model: scoring, positions, the table, the progress line, map bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "cli/run_pictures.h"
#include "cli/run_progress.h"
#include "cli/run_score.h"
#include "cli/run_table.h"

namespace regard::cli {
namespace {

std::vector<std::vector<float>> random_logits(int rows, int vocab, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(3, 4);
  std::vector<std::vector<float>> out;
  out.resize(size_t(rows));
  for (auto& row : out)
    for (int c = 0; c < vocab; ++c) row.push_back(normal(rng));
  return out;
}

std::vector<double> probabilities(const std::vector<float>& logits) {
  std::vector<double> p;
  double sum = 0;
  for (const float x : logits) {
    p.push_back(std::exp(double(x)));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

size_t argmax(const std::vector<float>& v) {
  return size_t(std::max_element(v.begin(), v.end()) - v.begin());
}

using Logits = std::vector<std::vector<float>>;

Scorer::Result plain(const Logits& exact, const Logits& row, const std::vector<int32_t>& next,
                     size_t stride) {
  Scorer::Result r;
  double compared = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const auto p = probabilities(exact[i]), q = probabilities(row[i]);
    r.loss -= std::log(q[size_t(next[i])]) / double(row.size());
    r.top1 += double(argmax(exact[i]) == argmax(row[i]));
    if (i % stride) continue;
    ++compared;
    for (size_t c = 0; c < p.size(); ++c) r.kl += p[c] * std::log(p[c] / q[c]);
  }
  r.kl /= compared;
  r.top1 /= double(row.size());
  return r;
}

// llama.cpp's row, then exact, then a method, as a run feeds them.
void judge(int positions, int vocab, int64_t max_bytes, size_t stride) {
  std::vector<int32_t> next;
  for (int i = 0; i < positions; ++i) next.push_back(i * 7 % vocab);
  const Logits exact = random_logits(positions, vocab, 1);
  Logits llama = exact, method = exact;
  const Logits noise = random_logits(positions, vocab, 2);
  for (size_t i = 0; i < exact.size(); ++i)
    for (size_t c = 0; c < exact[i].size(); ++c) {
      llama[i][c] += 0.05f * noise[i][c];
      method[i][c] += 0.3f * noise[i][c];
    }
  Scorer scorer(next, vocab, max_bytes);
  const auto pass = [&](Scorer::Role role, const Logits& rows) {
    scorer.begin(role);
    for (int i = 0; i < positions; ++i) scorer.add(i, rows[size_t(i)].data());
    return scorer.result();
  };
  // Rows of f32 log-probabilities: each is right to an ulp of its size, some 20.
  const double eps = 20 * 6e-8 * 4;
  EXPECT_NEAR(pass(Scorer::Role::first, llama).loss, plain(exact, llama, next, stride).loss, eps);
  EXPECT_NEAR(pass(Scorer::Role::exact, exact).loss, plain(exact, exact, next, stride).loss, eps);
  const Scorer::Result m = pass(Scorer::Role::other, method),
                       w = plain(exact, method, next, stride);
  EXPECT_NEAR(m.loss, w.loss, eps);
  EXPECT_NEAR(m.kl, w.kl, eps);
  EXPECT_DOUBLE_EQ(m.top1, w.top1);
  EXPECT_LT(m.top1, 1);
  const Scorer::Result first = scorer.first_against_exact(), l = plain(exact, llama, next, stride);
  EXPECT_NEAR(first.kl, l.kl, eps);
  EXPECT_DOUBLE_EQ(first.top1, l.top1);
  const Scorer::Result again = pass(Scorer::Role::other, exact);
  EXPECT_NEAR(again.kl, 0, eps);
  EXPECT_EQ(again.top1, 1);
}

TEST(Scorer, AgreesWithTheDefinitions) { judge(60, 97, Scorer::kMaxBytes, 1); }
TEST(Scorer, ComparesEverySecondPositionInHalfTheMemory) { judge(60, 97, 30 * 97 * 4, 2); }

TEST(Positions, AscendAndLeaveRoomForTheNextToken) {
  for (const int64_t count : {1, 7, 100, 511, 5000}) {
    const std::vector<int64_t> at = scored_positions(1024, 512, count);
    ASSERT_EQ(int64_t(at.size()), std::min<int64_t>(count, 511));
    EXPECT_GE(at.front(), 512);
    EXPECT_LE(at.back(), 1022);
    for (size_t i = 1; i < at.size(); ++i) {
      EXPECT_NEAR(double(at[i] - at[i - 1]), 511.0 / double(at.size()), 1.0);
      EXPECT_GT(at[i], at[i - 1]);
    }
  }
}

Row row(const char* name) {
  Row r;
  r.name = name;
  r.prefill_s = {120.5, 100.25, 1234.5};
  r.attention_s = {60.5, 50.25, 700.5};
  r.plan_s = {0, 0, 0};
  r.loss = 12.3456;
  r.loss_rise = -1.2345;
  r.kl = 12.34567;
  r.compared = true;
  r.peak_mib = 123456;
  return r;
}

TEST(Table, FitsItsColumnsAndNamesReasons) {
  std::vector<Row> rows = {row("llama.cpp"), row("exact"),
                           row("xattention:threshold=0.9,block=128,stride=16,forced=code"),
                           row("unfinished")};
  rows[2].exact_calls["the strip is too short"] = 3;
  rows[3].attention_s.clear();
  RunInfo info;
  info.model_desc = "m";
  info.over_ctx = true;
  std::string text = table(info, rows);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120u) << line;
  std::replace(text.begin(), text.end(), '\n', ' ');  // long lines are wrapped
  EXPECT_NE(text.find("120.50"), std::string::npos);  // the median of three
  EXPECT_NE(text.find("exact*"), std::string::npos);
  EXPECT_NE(text.find("the strip is too short"), std::string::npos);
  EXPECT_EQ(text.find("unfinished"), std::string::npos);
  EXPECT_EQ(table(info, {rows[3]}), "no row was finished\n");
}

TEST(Progress, SaysHowMuchAndHowFastInOneLine) {
  EXPECT_EQ(progress_line("exact", 3, 5, 512, 1024, 2, 65, 200),
            "[##########..........] 3/5 exact  512/1024 tokens  256 tokens/s  1:05 left");
  EXPECT_EQ(progress_line("exact", 3, 5, 512, 1024, 2, 65, 40).size(), 39u);
}

TEST(MassByte, KeepsSharesToThreePerCent) {
  EXPECT_EQ(mass_byte(0), 0);
  EXPECT_EQ(mass_byte(kMassFloor / 2), 0);
  EXPECT_EQ(mass_byte(1), 255);
  for (double share = 1.1e-6; share < 1; share *= 1.07) {
    const double back = std::pow(kMassFloor, 1 - (mass_byte(share) - 1) / 254.0);
    EXPECT_NEAR(back / share, 1, 0.03);
  }
}

}  // namespace
}  // namespace regard::cli
