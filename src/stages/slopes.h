// ALiBi's slopes. Layer: stages.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/view.h"

namespace regard {

// One slope a head. nearest_power (Press et al., arXiv 2108.12409, and their code): for a power of
// two 2^(-max_bias (h + 1) / heads); otherwise the slopes of the next lower power of two, p of
// them, followed by every second slope of 2 p. geometric (FlashBias): 2^(-max_bias (h + 1) / heads)
// always. max_bias is 8 in the paper.
enum class SlopeRule { nearest_power, geometric };
std::vector<float> alibi_slopes(int64_t heads, double max_bias, SlopeRule rule);

// `heads` numbers from a tensor of any shape; Error if it holds another number of them.
std::vector<float> per_head(const char* what, int64_t heads, const Tensor& values);

// x * factor
std::vector<float> scaled(std::vector<float> x, double factor);

}  // namespace regard
