// The CPU implementation: one source for every instruction set. See Work. Layer: cpu.
#pragma once
#include <string>

#include "plan/work.h"

namespace regard::cpu {

std::string refusal(const Work& w);  // empty: run() can
void run(const Work& w);
std::string target();  // "AVX3_DL", "AVX3", "AVX2", "SCALAR"

}  // namespace regard::cpu
