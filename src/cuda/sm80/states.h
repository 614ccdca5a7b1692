// Weights of features by sums over blocks of keys, where that is cheaper than pair by pair.
// Layer: cuda.
#pragma once
#include <functional>
#include <memory>

#include "cuda/device.h"
#include "cuda/sm80/state_params.h"
#include "regard/plan.h"

namespace regard::cuda::sm80 {

class States {
 public:
  // Null: the branch's pairs cost less. `reserve` gives bytes of the workspace their place.
  static std::unique_ptr<States> make(const Problem& p, const Branch& b, const RowRanges& ranges,
                                      DType type, Upload* upload,
                                      const std::function<int64_t(int64_t)>& reserve);

  int tile_rows() const { return params_.whole.rows; }

  // Of the features and values that `params` has; tells `params` what is left to the pairs.
  void run(const Upload& upload, char* workspace, void* stream, Params* params) const;

 private:
  StateParams params_;
  int64_t bits_ = 0;
  // Places in the workspace.
  int64_t shift_at_, sum_at_, loose_at_, tile_shift_at_, tile_sum_at_, states_at_, tile_states_at_,
      acc_at_, head_at_;
};

}  // namespace regard::cuda::sm80
