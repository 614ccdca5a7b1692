// Loss, KL divergence and top-1 agreement at the scored positions. Layer: cli.
#pragma once
#include <cstdint>
#include <vector>

namespace regard::cli {

// Evenly spaced positions p in [first, tokens - 2]: the model's output at p is judged by token p
// + 1.
std::vector<int64_t> scored_positions(int64_t tokens, int64_t first, int64_t count);

// Keeps ONE set of log-probabilities (f32; of an evenly spaced subset of the positions where all of
// them would take more than kMaxBytes). llama.cpp's row comes before exact, so the store first
// holds llama.cpp's; exact's pass compares against it and then overwrites it, position by position.
class Scorer {
 public:
  static constexpr int64_t kMaxBytes = 256 << 20;

  Scorer(std::vector<int32_t> next_token, int64_t vocab);
  int64_t positions() const { return int64_t(next_.size()); }
  int64_t compared() const { return int64_t(store_.size()) / vocab_; }

  enum class Role { first, exact, other };
  void begin(Role role);
  // Logits of scored position `i`, in ascending order.
  void add(int64_t i, const float* logits);

  struct Result {
    double loss = 0;          // mean negative log-likelihood, natural log
    double kl = 0, top1 = 0;  // KL(exact || this row) mean; share of equal argmax
  };
  Result result() const;                                 // of the pass begun last
  Result first_against_exact() const { return first_; }  // known after exact's pass

 private:
  float* slot(int64_t i);  // log-probabilities kept for position i, or null

  std::vector<int32_t> next_;
  int64_t vocab_, stride_;  // every stride_-th position is compared
  std::vector<float> store_, now_;
  std::vector<int32_t> best_;  // argmax of the pass in the store
  Role role_ = Role::first;
  double loss_ = 0, kl_ = 0;
  int64_t agree_ = 0, seen_ = 0;
  Result first_;
};

}  // namespace regard::cli
