// One branch of several, run by kernels other than the baseline's. Layer: cuda.
#pragma once
#include <memory>

#include "plan/ready.h"
#include "regard/plan.h"

namespace regard::cuda {

class BranchRun {
 public:
  virtual ~BranchRun() = default;
  virtual int64_t workspace() const = 0;
  // The Partial of every query row: acc [B, heads, nq, dv], head [B, heads, nq]{maximum in units of
  // log2, sum}. Like Ready::run.
  virtual void run(const Tensors& t, float* acc, float* head, void* workspace,
                   void* stream) const = 0;
};

// For branch `n` of the plan; null: it is the baseline's.
using BranchMaker = std::unique_ptr<BranchRun> (*)(const Plan& plan, size_t n, const Tensors& t);

// The baseline, for a plan of several branches that leaves some to others.
std::unique_ptr<Ready> sm80_ready_beside(BranchMaker others, const Plan& plan, const Tensors& t);

}  // namespace regard::cuda
