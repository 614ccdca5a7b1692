// What both implementations ask of views. Layer: cuda.
#pragma once
#include <string>

#include "regard/plan.h"
#include "regard/tensors.h"

namespace regard::cuda {

// Device, types, strides and pages that no kernel takes; empty: fine.
std::string views_refusal(const Tensors& t);
// What no kernel here reads yet: permuted axes, tile rows that share a list.
std::string plan_refusal(const Plan& plan);

}  // namespace regard::cuda
