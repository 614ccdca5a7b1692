// The CPU implementation: one source for every instruction set. See Work. Layer: cpu.
#pragma once
#include <string>
#include <vector>

#include "plan/work.h"

namespace regard::cpu {

std::string refusal(const Work& w);  // empty: run() can
void run(const Work& w);
std::string target();  // the instruction set in use: "AVX3", "AVX2", "SCALAR"

// Every target compiled in that this machine has, best first. The environment variable
// REGARD_CPU_TARGET names one to use instead of the best; tests call force_target ("" undoes it).
std::vector<std::string> targets();
void force_target(const std::string& name);  // throws Error that lists the names

}  // namespace regard::cpu
