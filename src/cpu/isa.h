// Named arithmetics (Branch::numeric) and the instructions they need. Layer: cpu.
//
// Debian's Highway 1.0.3 has no target with the bf16 and int8 dot products of AVX-512, so their
// micro-kernels are leaf functions in files of their own (bf16.cc, int8.cc), marked with
// REGARD_DOT_TARGET and called only where has_dot() holds. The rest of a kernel stays in Highway.
#pragma once
#include <cstdint>
#include <string>

#if defined(__x86_64__) && defined(__GNUC__)
#define REGARD_DOT 1
#define REGARD_DOT_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,fma,f16c")))
#else
#define REGARD_DOT 0
#define REGARD_DOT_TARGET
#endif

namespace regard::cpu {

enum class Numeric : uint8_t { f32, bf16, int8, int16 };

// `name` is one of numerics() (plan.h), which validate() has checked.
inline Numeric parse_numeric(const std::string& name) {
  return name == "bf16"    ? Numeric::bf16
         : name == "int8"  ? Numeric::int8
         : name == "int16" ? Numeric::int16
                           : Numeric::f32;
}

// Whether this machine has vdpbf16ps and vpdpbusd on 512-bit vectors. The forced target
// (REGARD_CPU_TARGET) is not looked at: numeric_refusal() does that.
inline bool has_dot() {
#if REGARD_DOT
  static const bool has =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

// Why this machine, on the instruction set in use, cannot run an arithmetic; empty: it can.
std::string numeric_refusal(Numeric n);

}  // namespace regard::cpu
