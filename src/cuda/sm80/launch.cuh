// One instance of the kernel as a host function. Layer: cuda.
#pragma once
#include "cuda/sm80/forward.cuh"
#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {

template <class S>
int prepare() {
  if (cudaFuncSetAttribute(forward_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           S::kBytes) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, forward_kernel<S>, S::kThreads, S::kBytes);
  return blocks;
}

template <class S>
void launch(const Params& p, int64_t items, void* stream) {
  forward_kernel<S><<<unsigned(items), S::kThreads, S::kBytes, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::sm80

#define REGARD_SM80_INSTANCE(name, type, ...)                                        \
  Instance instance_##name() {                                                       \
    using S = __VA_ARGS__;                                                           \
    static_assert(S::kBytes <= 99 << 10);                                            \
    return {#name, type, S::kDk, S::kDv, S::kRows, S::kKeys, prepare<S>, launch<S>}; \
  }
