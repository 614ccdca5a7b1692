// Inputs: what a method is given. Layer: plan.
#pragma once
#include <string>

#include "regard/plan.h"
#include "regard/problem.h"
#include "regard/view.h"

namespace regard {

// One attention call as the model states it. A method chooses the cover; causality, score and norm
// are the model's own and are applied to its plan afterwards (make_plan, method.h).
struct Inputs {
  View q;  // [B, heads, nq, dk]
  View k;  // [B, kv_heads, nk, dk]
  View v;  // [B, kv_heads, nk, dv]
  Problem problem;
  bool causal = true;
  Score score;
  Norm norm;
  std::string numeric;  // one of numerics() for every branch; empty: as the method's plan says
};

}  // namespace regard
