// Weight: what a query-key pair weighs in a branch of a plan. Layer: plan.
#pragma once
#include <cstdint>

#include "regard/view.h"

namespace regard {

// What a pair weighs. exponential: exp(logit). The others are products phi(q) . phi(k) of features,
// linear attention over the branch's pairs: keys that a whole tile of queries may read enter as one
// sum of phi(k) v^T. Branches of random features merge with exponential ones, whose weights they
// estimate; the other kinds have a scale of their own. They take raw keys as they stand, no scores
// and no numeric (f32).
enum class WeightKind : uint8_t {
  exponential,
  softmax,  // phi(x) = softmax of x over its channels
  elu,      // phi(x) = elu(x) + 1
  relu,     // phi(x) = max(x, 0)
  random,   // phi(x)_r = exp(w_r . y - |y|^2 / 2) / sqrt(m), y = x sqrt(scale), for m directions w:
            // phi(q) . phi(k) has the mean exp(scale q.k) over normal w (Performer, 2009.14794)
};
struct Weight {
  WeightKind kind = WeightKind::exponential;
  Tensor directions{};  // random: f32 [1, 1, m, dk]
};

}  // namespace regard
