// Exact attention probabilities of a few query rows: what probes and yardsticks are made of.
// Layer: stages. Nobody but the bodies of stages includes this.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/inputs.h"
#include "stages/matrix.h"

namespace regard {

// Throws Error for packed sequences: stages that cut the keys' axis into tiles know one sequence.
void need_one_sequence(const Problem& p, const char* stage);

// Rows of softmax(logits) with the model's own score and norm, over the keys each query may see.
class ProbabilityRows {
 public:
  explicit ProbabilityRows(const Inputs& x);

  // p[i * stride + j] = probability that query first + i of head h gives to key j, for i < count
  // and j < nk; 0 where it may not look. `stride` is at least panels(nk) * kPanel. A row without
  // keys is 0. Norm sigmoid: weights divided by their sum. With `inverse`, that division is left
  // to the caller: the probabilities are p[i * stride + j] * inverse[i].
  void run(const matrix::Packed& keys, int64_t b, int64_t h, int64_t first, int64_t count, float* p,
           int64_t stride, float* inverse = nullptr) const;
  int64_t stride() const { return matrix::row_stride(x_.problem.nk); }

 private:
  float weights(int64_t b, int64_t h, int64_t i, float* row) const;  // returns one over their sum
  void add_biases(int64_t b, int64_t h, int64_t i, int64_t lo, int64_t hi, float* row) const;

  const Inputs& x_;
  RowRanges ranges_;
};

}  // namespace regard
