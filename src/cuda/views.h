// What both implementations ask of views. Layer: cuda.
#pragma once
#include <string>

#include "regard/plan.h"
#include "regard/tensors.h"

namespace regard::cuda {

// Device, types, strides and pages that no kernel takes; empty: fine.
std::string views_refusal(const Tensors& t);
// What the baseline alone reads: permuted axes, shared lists, sources and weights of other kinds.
std::string plan_refusal(const Plan& plan);

}  // namespace regard::cuda
