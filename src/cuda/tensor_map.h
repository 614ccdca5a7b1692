// Tensor maps are encoded by the driver, whose entry is looked up: programs do not link it.
// Layer: cuda.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <string>

#include "regard/status.h"

namespace regard::cuda {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

inline EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                                cudaEnableDefault, &result);
    if (status != cudaSuccess)
      throw Error(std::string("cuda: cuTensorMapEncodeTiled: ") + cudaGetErrorString(status));
    return reinterpret_cast<EncodeTiled>(f);
  }();
  return found;
}

}  // namespace regard::cuda
