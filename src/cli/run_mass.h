// How much of exact attention a plan's pairs hold. Layer: cli.
#pragma once
#include <vector>

#include "regard/inputs.h"
#include "regard/plan.h"

namespace regard::cli {

// By query head, mean over batch and queries: the share of the exact probabilities (the model's
// score and norm, whatever the plan's own are) that lies on the plan's pairs. Empty where that is
// not defined: branches weighed by gates, pooled keys, a norm other than softmax.
std::vector<double> mass_kept(const Plan& plan, const Inputs& x, int threads);

// ln sum exp of all the logits that the model allows, [B, heads, nq, 1] f32.
Tensor exact_lse(const Inputs& x, int threads);
// The same with exact_lse(x) at hand.
std::vector<double> mass_kept(const Plan& plan, const Inputs& x, const Tensor& full, int threads);

}  // namespace regard::cli
