// Heads with plans of their own, as one plan. Layer: plan.
#pragma once
#include <set>
#include <tuple>
#include <vector>

#include "regard/plan.h"

namespace regard {

// Parts of one kind share a branch of the whole: columns?, then the window's left, right and sink,
// and how far below the greatest logit values are skipped.
using HeadKind = std::tuple<bool, int64_t, int64_t, int64_t, float>;
// Beside parts of other kinds. A window is none there, unless the part also reads columns.
std::set<HeadKind> head_kinds(const Plan& part);

// What keeps a plan from being a part, or null.
const char* not_by_head(const Plan& part);

// parts[0] is of the first parts[0].problem.heads heads, parts[1] of the next, and so on. Covers
// become lists by head (a dense head a full one), at most 16 kinds of them; score and norm are
// left at their defaults. Not lowered. Where heads differ, a window reaches to the ends of the
// tiles that it touches (64 x 64, or smaller where another head's are): one pass then reads all
// heads, and a few pairs more are cheaper than passes to be merged. Throws Error for what one plan
// cannot say: gates, pooled keys, masks, permuted axes, too many kinds.
Plan plan_by_head(const Problem& p, const std::vector<Plan>& parts);

}  // namespace regard
