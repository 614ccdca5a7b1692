// Heads with plans of their own, as one plan. Layer: plan.
#pragma once
#include <vector>

#include "regard/plan.h"

namespace regard {

// parts[0] is of the first parts[0].problem.heads heads, parts[1] of the next, and so on. Covers
// become lists by head (a dense head a full one), at most 16 kinds of them; score and norm are
// left at their defaults. Not lowered. Throws Error for what one plan cannot say: gates, pooled
// keys, masks, permuted axes, too many windows of different widths.
Plan plan_by_head(const Problem& p, const std::vector<Plan>& parts);

}  // namespace regard
