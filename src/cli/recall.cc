#include "cli/recall.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace regard::cli {
namespace {

using Json = nlohmann::ordered_json;
using Tokens = std::vector<int32_t>;

constexpr int64_t kCopies = 7, kParts = kCopies + 1;  // distances are multiples of length / kParts
constexpr int64_t kGaps[] = {1, 2, 4, 6};  // a needle between the first copies k and k + 1
constexpr const char* kAnimals[] = {"fox",  "owl",   "bear", "wolf", "horse", "eagle",
                                    "frog", "mouse", "deer", "goat", "snake", "whale"};

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t next_random(uint64_t* state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

struct Needle {
  Tokens ask, code, other, end;  // "The secret code of the fox is", " 48213", " 70566", "."
  int64_t size() const { return int64_t(ask.size() + code.size() + end.size()); }
};

std::vector<Needle> make_needles(const Tokenize& tokenize, uint64_t seed) {
  std::vector<const char*> names(std::begin(kAnimals), std::end(kAnimals));
  std::vector<Needle> out;
  for (size_t n = 0; n < std::size(kGaps); ++n) {
    const size_t pick = n + next_random(&seed) % (names.size() - n);
    std::swap(names[n], names[pick]);
    const auto code = [&] { return 10000 + next_random(&seed) % 90000; };
    Needle x;
    x.ask = tokenize(fmt::format("\nThe secret code of the {} is", names[n]));
    x.code = tokenize(fmt::format(" {}", code()));
    do {  // as many tokens, so that the documents have the same length
      x.other = tokenize(fmt::format(" {}", code()));
    } while (x.other.size() != x.code.size() || x.other == x.code);
    x.end = tokenize(".\n");
    out.push_back(std::move(x));
  }
  return out;
}

// Writes `piece` at `at`; returns where it ends.
int64_t put(Tokens* document, int64_t at, const Tokens& piece) {
  std::copy(piece.begin(), piece.end(), document->begin() + at);
  return at + int64_t(piece.size());
}

}  // namespace

RecallTask recall_task(const Tokens& document, const Tokenize& tokenize, uint64_t seed) {
  const int64_t length = int64_t(document.size()), part = length / kParts;
  const int64_t passage = std::clamp<int64_t>(length / 64, 24, 128);
  const int64_t blind = passage / 4;  // a copy cannot be recognised before it has begun
  const std::vector<Needle> needles = make_needles(tokenize, seed);
  int64_t asked = 0, widest = 0;
  for (const Needle& n : needles) {
    asked += int64_t(n.ask.size() + n.code.size());
    widest = std::max(widest, n.size());
  }
  RecallTask task;
  if (asked + passage > part || widest > part - 2 * passage) {
    task.why_not = fmt::format("recall needs a longer document than {} tokens", length);
    return task;
  }
  task.tokens = document;
  const int64_t tail = length - asked - kCopies * passage;
  const auto score = [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      task.positions.push_back(t - 1);
      task.next.push_back(task.tokens[size_t(t)]);
    }
    return int64_t(task.positions.size());
  };
  // The tail's own text is used nowhere else: it stands in for the first copies in `without`.
  task.without = document;
  std::vector<int64_t> firsts;
  for (int64_t k = 1; k <= kCopies; ++k) {
    const int64_t at = tail + (k - 1) * passage, first = at - k * part;
    firsts.push_back(first);
    std::copy_n(document.begin() + at, passage, task.without.begin() + first);
  }
  for (size_t n = 0; n < needles.size(); ++n) {
    // After the end of first copy k + 1, before first copy k.
    const int64_t from = firsts[size_t(kGaps[n])] + passage, to = firsts[size_t(kGaps[n] - 1)];
    const int64_t at = from + (to - from - needles[n].size()) / 2;
    const int64_t code = put(&task.tokens, at, needles[n].ask);
    put(&task.tokens, put(&task.tokens, code, needles[n].code), needles[n].end);
    put(&task.without, put(&task.without, put(&task.without, at, needles[n].ask), needles[n].other),
        needles[n].end);
    task.needles.push_back({code, 0, 0});  // the code's place for now
  }
  for (int64_t k = 1; k <= kCopies; ++k) {
    const int64_t at = tail + (k - 1) * passage;
    std::copy_n(document.begin() + firsts[size_t(k - 1)], passage, task.tokens.begin() + at);
    std::copy_n(document.begin() + firsts[size_t(k - 1)], passage, task.without.begin() + at);
    const int64_t begin = int64_t(task.positions.size());
    task.copies.push_back({k * part, begin, score(at + blind, at + passage)});
  }
  int64_t at = length - asked;
  for (size_t n = 0; n < needles.size(); ++n) {
    put(&task.without, put(&task.without, at, needles[n].ask), needles[n].code);
    at = put(&task.tokens, at, needles[n].ask);
    const int64_t code = at;
    at = put(&task.tokens, at, needles[n].code);
    RecallTask::Question& q = task.needles[n];
    q = {code - q.distance, int64_t(task.positions.size()), 0};
    q.last = score(code, at);
  }
  return task;
}

RecallScorer::RecallScorer(const RecallTask& task, int64_t vocab)
    : task_(task), vocab_(vocab), loss_(task.positions.size()), rank_(task.positions.size()) {}

void RecallScorer::add(int64_t i, const float* logits) {
  const float right = logits[task_.next[size_t(i)]];
  const float best = *std::max_element(logits, logits + vocab_);
  double sum = 0;
  int64_t above = 0;
  for (int64_t c = 0; c < vocab_; ++c) {
    sum += std::exp(double(logits[c]) - best);
    above += logits[c] > right;
  }
  loss_[size_t(i)] = best + std::log(sum) - right;
  rank_[size_t(i)] = above + 1;
}

Json RecallScorer::result() const {
  const auto mean_loss = [&](const RecallTask::Question& q) {
    double sum = 0;
    for (int64_t i = q.first; i < q.last; ++i) sum += loss_[size_t(i)];
    return sum / double(q.last - q.first);
  };
  Json out = {{"copies", Json::array()}, {"needles", Json::array()}};
  double copy_loss = 0, needle_loss = 0, hits = 0, asked = 0;
  for (const RecallTask::Question& q : task_.copies) {
    copy_loss += mean_loss(q) / double(task_.copies.size());
    out["copies"].push_back({{"distance", q.distance}, {"loss", mean_loss(q)}});
  }
  for (const RecallTask::Question& q : task_.needles) {
    const std::vector<int64_t> ranks(rank_.begin() + q.first, rank_.begin() + q.last);
    needle_loss += mean_loss(q) / double(task_.needles.size());
    hits += double(std::count(ranks.begin(), ranks.end(), 1));
    asked += double(ranks.size());
    out["needles"].push_back({{"distance", q.distance}, {"loss", mean_loss(q)}, {"ranks", ranks}});
  }
  out["copy_loss"] = copy_loss;
  out["needle_loss"] = needle_loss;
  out["needle_hits"] = hits / asked;
  return out;
}

}  // namespace regard::cli
