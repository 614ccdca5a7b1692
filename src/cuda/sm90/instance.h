// One line of instances.def, compiled. The build makes a source file a line:
//   #include "cuda/sm90/instance.h"
//   REGARD_SM90(...)
// Layer: cuda (device code).
#pragma once
#include "cuda/sm90/kernel.h"
#include "cuda/sm90/params.h"

namespace regard::cuda::sm90 {
using bf16 = __nv_bfloat16;
using f16 = __half;
}  // namespace regard::cuda::sm90

#ifndef REGARD_SM90_KIND
#define REGARD_SM90_KIND(...) __VA_ARGS__  // Gathering<__VA_ARGS__> for gathering.def
#endif

#define REGARD_SM90(NAME, ELEMENT, D, GROUPS, KEYS, PIECE, KV_STAGES, Q_STAGES, Q_REGISTERS,    \
                    STAGED, HOOKS)                                                              \
  namespace regard::cuda::sm90 {                                                                \
  using NAME##_shape = REGARD_SM90_KIND(                                                        \
      Shape<ELEMENT, D, GROUPS, KEYS, PIECE, KV_STAGES, Q_STAGES, Q_REGISTERS, STAGED, HOOKS>); \
  extern const Instance NAME;                                                                   \
  const Instance NAME = {                                                                       \
      static_cast<int>(Type::ELEMENT), D,     64 * GROUPS,         KEYS, PIECE, HOOKS,          \
      NAME##_shape::kBlocks,           #NAME, launch<NAME##_shape>};                            \
  }
