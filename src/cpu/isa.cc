#include "cpu/isa.h"

#include "cpu/cpu.h"

namespace regard::cpu {

std::string numeric_refusal(Numeric n) {
  if (n == Numeric::f32) return "";
  const std::string name = n == Numeric::bf16 ? "bf16" : "int8";
  if (!has_dot())
    return "numeric '" + name + "' needs AVX-512 with BF16 and VNNI, which this machine lacks";
  // Tile shapes and packing are those of the AVX-512 compilation.
  if (target() != "AVX3")
    return "numeric '" + name + "' needs the instruction set AVX3; in use is " + target();
  return "";
}

}  // namespace regard::cpu
