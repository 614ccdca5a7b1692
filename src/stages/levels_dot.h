// Products of levels by the dot product of 16-bit pairs (AVX-512 VNNI). Layer: stages.
//
// Debian's Highway 1.0.3 has no target with it, so it is a leaf, called where has_levels_dot().
#pragma once
#include <cstdint>

#include "stages/matrix.h"

namespace regard::matrix {

bool has_levels_dot();

// One token of multiply_levels(): c[i][l] += (integer sum) * (a_scale[i] * k_scale.x[l]), fused.
void multiply_levels_dot(const float* a, const float* a_scale, int64_t rows, int64_t pairs,
                         const Line* panel, const Line& k_scale, float* c, int64_t stride);

}  // namespace regard::matrix
