// Plans as pictures of all heads: in a terminal and as one SVG. Layer: cli.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "regard/plan.h"

namespace regard::cli {

// Share of the pairs read, by head: of batch item 0 where pairs are drawn, of all in the numbers.
std::vector<double> head_densities(const Plan& plan);

// Blocks of text, three heads side by side: queries down, keys across.
std::string text_maps(const Plan& plan, const std::vector<int64_t>& heads);
std::string svg_sheet(const Plan& plan, const std::vector<int64_t>& heads);

}  // namespace regard::cli
