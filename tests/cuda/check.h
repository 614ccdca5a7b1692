// Helpers of the GPU kernels' tests: host tensors in, host tensors out.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "cuda/cuda.h"
#include "random_plan.h"
#include "ref/judge.h"
#include "regard/run.h"

namespace regard::test {

struct DeviceRun {
  regard::Tensors t;
  std::vector<Tensor> own;

  View up(const Tensor& x) {
    own.push_back(cuda::to_device(x.view));
    return own.back().view;
  }
  // Output memory starts as NaN, so that an element nobody writes is seen.
  View poisoned(DType type, std::array<int64_t, 4> size) {
    const Tensor host = make_tensor(type, size);
    std::vector<float> row(size_t(size[3]), std::nanf(""));
    for (int64_t a = 0; a < size[0]; ++a)
      for (int64_t b = 0; b < size[1]; ++b)
        for (int64_t c = 0; c < size[2]; ++c) write_row(host.view, a, b, c, row.data());
    return up(host);
  }

  DeviceRun(const Plan& plan, const Tensor& q, const Tensor& k, const Tensor& v, DType out) {
    const Problem& p = plan.problem;
    t.q = up(q), t.k = up(k), t.v = up(v);
    t.out.out = poisoned(out, {p.batch, p.heads, p.nq, p.dv});
    t.out.lse = poisoned(DType::f32, {p.batch, p.heads, p.nq, 1});
  }
  Tensor out() const { return cuda::to_host(t.out.out); }
  Tensor lse() const { return cuda::to_host(t.out.lse); }
};

}  // namespace regard::test
