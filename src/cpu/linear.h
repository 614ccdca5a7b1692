// Linear attention over a branch's pairs: weights phi(q) . phi(k) (WeightKind). Layer: cpu.
#pragma once
#include "plan/work.h"

namespace regard::cpu {

void run_linear(const Work& w);

}  // namespace regard::cpu
