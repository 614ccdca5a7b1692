// The checks behind Plan::validate. Layer: plan.
#pragma once
#include "regard/plan.h"

namespace regard {

// Everything but disjointness: linear in the lists, so attend() affords it on every call.
void check_form(const Plan& plan);

}  // namespace regard
