// Launching the baseline's kernels. Layer: cuda.
#pragma once
#include <cuda_runtime_api.h>

namespace regard::cuda::sm80 {

// `overlap`: blocks may start before the kernel ahead has ended, and wait inside.
template <class P>
void start(void (*kernel)(P), dim3 blocks, int threads, const P& p, void* stream,
           bool overlap = false, int shared_bytes = 0) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = cudaStream_t(stream);
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = overlap ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace regard::cuda::sm80
