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

// One element of batch item 0.
inline void put(const Tensor& t, int64_t h, int64_t i, int64_t c, float x) {
  View one = t.view;
  one.data = one.at(0, h, i) + c * one.stride[3];
  one.size = {1, 1, 1, 1};
  write_row(one, 0, 0, 0, &x);
}

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

// A graph of several calls, twice.
inline void run_in_graph(const Runner& runner, const regard::Tensors& t, void* workspace) {
  struct Call {
    const Runner& runner;
    const regard::Tensors& t;
    void* workspace;
  } call{runner, t, workspace};
  cuda::time_graph(
      [](void* c, void* stream) {
        const Call& x = *static_cast<Call*>(c);
        x.runner.run(x.t, x.workspace, x.runner.workspace(), stream);
      },
      &call, 3, 2);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Kind {
  const char* impl;
  DType type;
};
inline void PrintTo(const Kind& k, std::ostream* out) {
  *out << k.impl << " " << info(k.type).name;
}

struct Inputs3 {
  Tensor q, k, v;
  Inputs3(Rng& g, const Problem& p, DType t)
      : q(random_tensor(g, {p.batch, p.heads, p.nq, p.dk}, t)),
        k(random_tensor(g, {p.batch, p.kv_heads, p.nk, p.dk}, t)),
        v(random_tensor(g, {p.batch, p.kv_heads, p.nk, p.dv}, t)) {}
};

class Cuda : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (std::string why = cuda::absence(); !why.empty()) GTEST_SKIP() << why;
  }
  void TearDown() override {
    if (!HasFailure() && runs_ == 0 && !IsSkipped()) GTEST_SKIP() << "every plan refused: " << why_;
  }

  DType type() const { return GetParam().type; }
  RunOptions options() const {
    RunOptions o;
    o.impl = GetParam().impl;
    return o;
  }
  Inputs3 inputs(const Problem& p) { return Inputs3(g, p, type()); }

  // False where the implementation refuses the plan.
  bool takes(const Plan& plan, const regard::Tensors& t) {
    for (const Choice& c : explain(plan, t, options())) {
      if (c.name != GetParam().impl) continue;
      runs_ += c.refusal.empty();
      if (!c.refusal.empty()) why_ = c.refusal;
      return c.refusal.empty();
    }
    return false;
  }

  void check(const Plan& plan, const Inputs3& x, DType out = DType::f32) {
    const DeviceRun d(plan, x.q, x.k, x.v, out);
    if (!takes(plan, d.t)) return;
    attend(plan, d.t, options());
    judge(plan, x, d.out(), d.lse());
  }
  void check(const Plan& plan) { check(plan, inputs(plan.problem)); }

  void judge(const Plan& plan, const Inputs3& x, const Tensor& out, const Tensor& lse) {
    Out got;
    got.out = out.view, got.lse = lse.view;
    const ref::Verdict v =
        ref::judge(plan, x.q.view, x.k.view, x.v.view, got, hardware_threads(), type());
    EXPECT_TRUE(v.passed()) << plan.problem.str() << ": " << v.failure;
  }

  Rng g{7};
  int runs_ = 0;
  std::string why_;
};

const auto kEach = testing::Values(Kind{"cuda_sm90", DType::bf16}, Kind{"cuda_sm90", DType::f16},
                                   Kind{"cuda_sm80", DType::bf16}, Kind{"cuda_sm80", DType::f16});
inline std::string by_name(const testing::TestParamInfo<Kind>& i) {
  return std::string(i.param.impl) + "_" + info(i.param.type).name;
}

}  // namespace regard::test
