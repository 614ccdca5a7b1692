// Rates of the dot-product instructions that Debian's Highway has no target for. Layer: cpu.
#pragma once
#include <cstdint>

namespace regard::cpu {

bool has_bf16_dot();  // AVX512-BF16
bool has_int8_dot();  // AVX512-VNNI
// Both return the operations done (two a multiply-add) and leave 64 bytes at sink, so that the work
// is not removed. Only where the machine has the instructions.
double bf16_dot(int64_t rounds, float* sink);
double int8_dot(int64_t rounds, float* sink);

}  // namespace regard::cpu
