#include "cli/run_score.h"

#include <algorithm>
#include <cmath>

namespace regard::cli {
namespace {

// KL(p || q) of two rows of log-probabilities.
double divergence(const float* log_p, const float* log_q, int64_t n) {
  double kl = 0;
  for (int64_t c = 0; c < n; ++c) {
    kl += std::exp(double(log_p[c])) * (double(log_p[c]) - double(log_q[c]));
  }
  return kl;
}

}  // namespace

std::vector<int64_t> scored_positions(int64_t tokens, int64_t first, int64_t count) {
  const int64_t span = std::max<int64_t>(0, tokens - 1 - first);
  count = std::min(count, span);
  std::vector<int64_t> at(count);
  for (int64_t i = 0; i < count; ++i) at[i] = first + (2 * i + 1) * span / (2 * count);
  return at;
}

Scorer::Scorer(std::vector<int32_t> next_token, int64_t vocab, int64_t max_bytes)
    : next_(std::move(next_token)), vocab_(vocab), now_(vocab), best_(next_.size()) {
  const int64_t most = std::max<int64_t>(1, max_bytes / (vocab * int64_t(sizeof(float))));
  stride_ = std::max<int64_t>(1, (positions() + most - 1) / most);
  // Filled now, so that every row's peak memory contains it alike.
  store_.assign((positions() + stride_ - 1) / stride_ * vocab, 0.f);
}

float* Scorer::slot(int64_t i) {
  return i % stride_ == 0 ? &store_[i / stride_ * vocab_] : nullptr;
}

void Scorer::begin(Role role) {
  role_ = role;
  loss_ = kl_ = 0;
  agree_ = seen_ = 0;
}

void Scorer::add(int64_t i, const float* logits) {
  const int32_t best = int32_t(std::max_element(logits, logits + vocab_) - logits);
  double sum = 0;
  for (int64_t c = 0; c < vocab_; ++c) sum += std::exp(double(logits[c]) - logits[best]);
  const double lse = logits[best] + std::log(sum);
  for (int64_t c = 0; c < vocab_; ++c) now_[c] = float(logits[c] - lse);

  loss_ += lse - logits[next_[i]];
  ++seen_;
  float* kept = slot(i);
  if (role_ != Role::first) {
    agree_ += best == best_[i];
    // The store holds the first row during exact's pass, exact during all others.
    if (kept && role_ == Role::exact) kl_ += divergence(now_.data(), kept, vocab_);
    if (kept && role_ == Role::other) kl_ += divergence(kept, now_.data(), vocab_);
  }
  if (role_ != Role::other) {
    best_[i] = best;
    if (kept) std::copy(now_.begin(), now_.end(), kept);
  }
  if (role_ == Role::exact && seen_ == positions()) {
    first_.kl = kl_ / double(compared());
    first_.top1 = double(agree_) / double(positions());
  }
}

Scorer::Result Scorer::result() const {
  if (seen_ == 0) return {};
  Result r{loss_ / double(seen_), 0, 1};
  if (role_ == Role::other) {
    r.kl = kl_ / double(compared());
    r.top1 = double(agree_) / double(seen_);
  }
  return r;
}

}  // namespace regard::cli
