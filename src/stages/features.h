// Feature maps and learned maps for branches of linear attention. Layer: stages.
#pragma once
#include <cstdint>
#include <string>

#include "regard/plan.h"

namespace regard::features {

// Weights by positive random features: `count` directions (an odd one is left out), w and -w for
// every w of random_normal(seed, 0, n, channel). count 0: int(dk ln dk).
Weight random(const Problem& p, int64_t count, int64_t seed);

// "softmax", "elu" (elu + 1) or "relu".
Weight named(const std::string& name);

// A linear layer y = W x + b after attention, as the map of the values (Source::value_map). weight:
// [1, 1|kv_heads, dv, dv], rows are outputs; bias: dv numbers.
Tensor output_map(const Problem& p, const Tensor& weight, const Tensor& bias);

}  // namespace regard::features
