// The kernel: two producer warps, kGroups consumer warpgroups. Layer: cuda (device code).
#pragma once
#include "cuda/sm90/consumer.h"
#include "cuda/sm90/launch.h"
#include "cuda/sm90/producer.h"

namespace regard::cuda::sm90 {

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    attention(const __grid_constant__ Call c) {
  extern __shared__ uint8_t raw[];
  Storage<S>& m = *reinterpret_cast<Storage<S>*>(raw);
  if (ptx::shared(raw) != kSharedBase) __trap();
  if (threadIdx.x == 0) {
    ptx::prefetch(&c.q);
    ptx::prefetch(&c.k);
    ptx::prefetch(&c.v);
    // Consumers give a slot of values back with one arrival a warp, and where they have read a work
    // or a step beside the queries or keys, with one a lane, as the values' producer does.
    for (int i = 0; i < S::kQStages; ++i) {
      ptx::init(&m.q_full[i], 1);
      ptx::init(&m.q_empty[i], 128 * S::kGroups + 32);
    }
    for (int i = 0; i < S::kKvStages; ++i) {
      ptx::init(&m.k_full[i], 1);
      ptx::init(&m.k_empty[i], 128 * S::kGroups);
      ptx::init(&m.v_full[i], 1);
      ptx::init(&m.v_empty[i], 4 * S::kGroups);
    }
    for (int& number : m.spoilt) number = -1;
    ptx::fence_init();
  }
  __syncthreads();
  ptx::release_next_kernel();
  ptx::wait_for_previous_kernel();
  if (threadIdx.x < 128) {
    ptx::give_registers<S::kProducerRegisters>();
    if (threadIdx.x < 32) {
      produce_keys<S>(c, m);
    } else if (threadIdx.x < 64) {
      produce_values<S>(c, m);
    }
  } else {
    ptx::take_registers<S::kConsumerRegisters>();
    Consumer<S>(c, m).run();
  }
}

// Host side of one instance.
template <class S>
void launch(const Call& c, int blocks, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Storage<S>);
  // A multiprocessor has 228 KB, of which every block takes one more.
  static_assert(S::kBlocks * (kBytes + 1024) <= 228 * 1024);
  check(cudaFuncSetAttribute(attention<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "cudaFuncSetAttribute");
  // Blocks may start before the kernel ahead has ended, and wait inside.
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(S::kThreads);
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, attention<S>, c), "launch");
}

}  // namespace regard::cuda::sm90
