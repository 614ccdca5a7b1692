// Out: what attention returns. Layer: plan.
#pragma once
#include "regard/view.h"

namespace regard {

struct Out {
  View out;  // [B, heads, nq, dv] f32, f16, bf16 or f64, any strides; an empty row is 0
  View lse;  // [B, heads, nq, 1] f32 or f64; natural log; an empty row is -inf; optional
  // How much attention each key got: sum over queries of the probability; f32 or f64
  // [B, heads, 1, nk]; optional; plans of one raw branch only.
  View column_mass;
};

}  // namespace regard
