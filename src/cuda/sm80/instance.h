// The kernels of the baseline as functions. Layer: cuda.
#pragma once
#include <cstdint>
#include <vector>

#include "cuda/sm80/params.h"
#include "cuda/sm80/state_params.h"

namespace regard::cuda::sm80 {

struct Instance {
  const char* name;
  Type type;
  Kind kind;
  int dk, dv;      // at most
  int rows, keys;  // of a tile
  bool decodes() const { return kind == Kind::ranges || kind == Kind::lists; }
  // Raises the limit of shared memory; returns blocks of the kernel that a multiprocessor holds.
  // 0: the device cannot run it.
  int (*prepare)();
  // `overlap`: its blocks may start before the kernel ahead has ended, and wait inside: sm_90 and
  // later.
  void (*launch)(const Params&, int64_t items, bool overlap, void* stream);
};

// In the order of instances.def.
const std::vector<Instance>& instances();
// Pair by pair (pairs.cu): weights of features, values skipped at any head size.
const Instance& pairs_instance(Type, int64_t dv);

void launch_merge(const MergeParams&, int warps, bool overlap, void* stream);
void launch_pool(const PoolParams&, void* stream);
void launch_features(const FeatureParams&, void* stream);
// In this order; add to `acc` for each chunk of features.
void launch_state_bounds(const StateParams&, void* stream);
void launch_states(const StateParams&, void* stream);
void launch_tokens(const TokensParams&, void* stream);
void launch_map(const MapParams&, void* stream);

}  // namespace regard::cuda::sm80
