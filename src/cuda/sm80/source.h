// Keys and values of a branch that are not the caller's: means of blocks, the method's own, values
// mapped. Layer: cuda.
#pragma once
#include <functional>

#include "cuda/device.h"
#include "cuda/sm80/params.h"
#include "regard/plan.h"

namespace regard::cuda::sm80 {

class SourceRows {
 public:
  // `reserve` gives bytes of the workspace their place. Tells `params` how keys are found.
  SourceRows(const Problem& p, const Branch& b, const Tensors& t, Upload* upload,
             const std::function<int64_t(int64_t)>& reserve, Params* params);

  // Makes them from the caller's, which `params` has so far, and puts them in their place.
  void run(const Upload& upload, char* workspace, void* stream, Params* params) const;

 private:
  Rows made(char* data, int64_t d, int64_t bytes) const;

  const Problem p_;
  const int64_t keys_;
  Type value_type_;  // of what a map reads
  // Places in the upload and in the workspace; -1: not there.
  int64_t given_k_ = -1, given_v_ = -1, map_ = -1;
  int64_t k_at_ = -1, v_at_ = -1, mapped_at_ = -1, tokens_at_ = -1;
  PoolParams pool_;
  MapParams mapping_;
  TokensParams tokens_;
};

}  // namespace regard::cuda::sm80
