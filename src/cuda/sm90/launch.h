// The instances, as the host sees them. Layer: cuda.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "cuda/sm90/call.h"
#include "regard/status.h"

namespace regard::cuda::sm90 {

inline void check(cudaError_t e, const char* what) {
  if (e != cudaSuccess) {
    throw Error(std::string("cuda_sm90 forward: ") + what + ": " + cudaGetErrorString(e));
  }
}

struct Instance {
  int type;    // Type::bf16 or f16
  int d;       // head size, padded
  int rows;    // query rows a block
  int keys;    // keys a step
  int piece;   // consecutive keys a copy
  bool hooks;  // soft-cap, ALiBi
  int blocks;  // resident a multiprocessor
  const char* name;
  void (*launch)(const Call&, int blocks, cudaStream_t);
};

// Fastest first among those that can.
extern const Instance* const kInstances[];
extern const int kInstanceCount;
// Those that take single keys.
extern const Instance* const kGathering[];
extern const int kGatheringCount;

}  // namespace regard::cuda::sm90
