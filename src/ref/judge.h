// Judging a kernel: its error against the fp64 reference, measured by the error of a naive
// implementation in the same arithmetic on the same inputs. Layer: ref.
#pragma once
#include <string>

#include "regard/out.h"
#include "regard/plan.h"

namespace regard::ref {

struct Verdict {
  double error = 0, bound = 0;  // of the output element nearest to (or furthest past) its bound
  double lse_error = 0, lse_bound = 0;  // the same of the lse
  double relative = 0;  // root of the sum of squared errors of the output over that of its squares
  std::string failure;  // empty: passed; else the first few elements out of bounds
  bool passed() const { return failure.empty(); }
};

// An output element may be off by twice the largest error of the naive
// implementation, plus 4 ulps (numerics bf16 and int8: half an ulp of bf16) of its row's largest
// term weight * value, plus half an ulp of the output's own type. NaN and infinities must be where
// the reference has them.
//
// `operands` is the type of what a GPU's kernel multiplies: the naive implementation rounds weights
// (relative to the row's largest), pooled, mapped and given keys and values to it, and adds in f32.
Verdict judge(const Plan& plan, const View& q, const View& k, const View& v, const Out& got,
              int threads, DType operands = DType::f32);

}  // namespace regard::ref
