// Shares of attention in whole units, whose sums are exact in any order. Layer: stages (also device
// code).
#pragma once
#include <cstdint>

#include "regard/partial.h"

namespace regard::units {

// A unit is 2^-32; shares beyond 2^20 count as 2^20, NaN and what is not positive as nothing. Sums
// of 2^21 rows of probabilities stay below 2^53, so that doubles hold them.
REGARD_HD constexpr uint64_t of(float share) {
  if (!(share > 0)) return 0;
  return uint64_t(double(share < 1048576.0f ? share : 1048576.0f) * 4294967296.0);
}

// How many of the largest shares reach a goal, all those above one value taken: the rest have it.
struct Crossing {
  uint64_t total = 0;  // of all shares
  uint64_t above = 0;  // sum of the shares above `value`, less than the goal
  int64_t count = 0;   // and their number
  float value = 0;
};

// The fewest of `n` >= 1 shares that reach gamma of the total, at least 1; all where none do.
inline int64_t fewest(const Crossing& x, int64_t n, double gamma) {
  const double goal = gamma * double(x.total);
  if (!(goal > 0)) return 1;
  if (double(x.total) < goal) return n;
  const uint64_t each = of(x.value);
  int64_t more = int64_t((goal - double(x.above)) / double(each));
  while (double(x.above + uint64_t(more) * each) < goal) ++more;
  while (more > 0 && double(x.above + uint64_t(more - 1) * each) >= goal) --more;
  return x.count + more;
}

}  // namespace regard::units
