// Exact attention of a few queries by tiles of keys: what yardsticks need of it, in one pass
// without the probabilities themselves. Layer: stages. Nobody but the bodies of stages includes
// this.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/inputs.h"
#include "stages/matrix.h"

namespace regard {

class TileSums {
 public:
  // Whether the model's score and norm are of the kind: softmax, no biases; and tiles are panels.
  static bool takes(const Inputs& x, int64_t width);
  TileSums(const Inputs& x, int64_t width);  // keys a tile; throws Error for packed sequences

  static constexpr int64_t kRows = 64;  // most queries of a run
  int64_t tiles() const { return tiles_; }

  // For queries first + i, i < count: top[i * tiles() + c], the greatest logit of tile c among the
  // keys it sees (-inf where it sees none; NaN is passed over), and sum, of exp(logit - top) (top
  // counts as 0 where it is -inf), as matrix::sum_of does. pairs, where given (tiles of 64): a row
  // of bits a query; `kept` is then the sum over the keys whose bit is set.
  void run(const matrix::Packed& keys, int64_t b, int64_t h, int64_t first, int64_t count,
           float* top, float* sum, const uint64_t* pairs = nullptr, float* kept = nullptr) const;

 private:
  const Inputs& x_;
  const int64_t width_, tiles_;
};

}  // namespace regard
