#include "cpu/linear.h"

#include "core/parallel.h"

// The targets of cpu.cc.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The per-target code.
#include "cpu/linear-inl.h"

#if HWY_ONCE
namespace regard::cpu {

HWY_EXPORT(RunLinear);

void run_linear(const Work& w) { HWY_DYNAMIC_DISPATCH(RunLinear)(w); }

}  // namespace regard::cpu
#endif  // HWY_ONCE
