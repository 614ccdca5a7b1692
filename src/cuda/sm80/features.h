// Weights of features: log2 phi of every query and key of a branch, made in the workspace.
// Layer: cuda.
#pragma once
#include <functional>

#include "cuda/device.h"
#include "cuda/sm80/params.h"
#include "regard/plan.h"

namespace regard::cuda::sm80 {

class FeatureRows {
 public:
  // `reserve` gives bytes of the workspace their place.
  FeatureRows(const Problem& p, const Branch& b, const Tensors& t, Upload* upload,
              const std::function<int64_t(int64_t)>& reserve);

  // Makes them of the queries and keys that `params` has, and points it at them.
  void run(const Upload& upload, char* workspace, void* stream, Params* params) const;
  // Points `params` at what run() made.
  void tell(char* workspace, Params* params) const;

 private:
  FeatureParams keys_, queries_;
  int64_t directions_ = -1, k_at_, q_at_, k_top_at_, q_top_at_;
};

}  // namespace regard::cuda::sm80
