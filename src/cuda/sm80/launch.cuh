// One instance of the kernel as a host function. Layer: cuda.
#pragma once
#include <type_traits>

#include "cuda/sm80/forward.cuh"
#include "cuda/sm80/instance.h"
#include "cuda/sm80/start.cuh"
#include "cuda/sm80/wide.cuh"

namespace regard::cuda::sm80 {

// Blocks that must fit into a multiprocessor's registers; 0: as many as do.
template <class S>
constexpr int kTogether = S::kWide                                    ? 2
                          : S::kDk == 64 && S::kWm == 4 && !S::kSkips ? 3
                                                                      : 0;

template <class S>
__global__ void __launch_bounds__(S::kThreads, kTogether<S>)
    forward_kernel(const __grid_constant__ Params p) {
  const Item item = p.items[blockIdx.x];
  typename std::conditional_t<S::kWide, WideBlock<S>, Block<S>> block(p, item, dynamic_shared());
  const int4 asked = block.ask();
  wait_for_previous_kernel();
  block.run(asked);
  release_next_kernel();
  block.write_rows();
  if (p.done && item.pieces > 1) merge_pieces<S>(p, item);
}

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
void launch(const Params& p, int64_t items, bool overlap, void* stream) {
  start<Params>(forward_kernel<S>, dim3(unsigned(items)), S::kThreads, p, stream, overlap,
                S::kBytes);
}

}  // namespace regard::cuda::sm80

// Shared memory: what every card since sm_80 gives a block, or what a Hopper card does.
#define REGARD_SM80_INSTANCE(name, type, ...)                                                  \
  Instance instance_##name() {                                                                 \
    using S = __VA_ARGS__;                                                                     \
    static_assert(S::kBytes <= (S::kLean ? 227 : 99) << 10);                                   \
    return {#name, type, S::kKind, S::kDk, S::kDv, S::kRows, S::kKeys, prepare<S>, launch<S>}; \
  }
