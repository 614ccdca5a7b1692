// A number of each head as the selector's amounts. Layer: stages. Body:
// src/stages/select/budgets.cc.
#pragma once
#include <string>
#include <vector>

#include "stages/estimate.h"

namespace regard {

// From a tensor [1,1,1,heads]: one a row of tiles, its head's. No tensor: none. Throws Error for a
// tensor of another size.
std::vector<double> amounts_of_heads(const Tensor& of_heads, const BlockScores& scores);

}  // namespace regard
