// Helpers of the CPU kernels' tests.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "random_plan.h"
#include "ref/judge.h"
#include "regard/run.h"

namespace regard::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// K or V of any type; quantised blocks get random bytes behind sane scales.
inline Tensor random_keys(Rng& g, std::array<int64_t, 4> size, DType t, double sigma = 1) {
  if (info(t).block == 1) return random_tensor(g, size, t, sigma);
  Tensor out = make_tensor(t, size);
  const int64_t blocks = size[3] / info(t).block;
  const uint16_t scale = t == DType::q8_0 || t == DType::iq4_nl ? 0x2000 : 0x2e00;
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c) {
        char* p = out.view.at(a, b, c);
        for (int64_t n = 0; n < blocks; ++n, p += info(t).bytes) {
          for (int64_t i = 0; i < info(t).bytes; ++i) p[i] = char(g());
          const uint16_t d = uint16_t(scale + g() % 256);
          std::memcpy(p, &d, 2);
          if (t == DType::q4_1 || t == DType::q5_1) std::memcpy(p + 2, "\x12\xb5", 2);
        }
      }
  return out;
}

struct Qkv {
  Tensor q, k, v;
  Qkv(Rng& g, const Problem& p, DType kt = DType::f32, DType vt = DType::f32, DType qt = DType::f32)
      : q(random_tensor(g, {p.batch, p.heads, p.nq, p.dk}, qt)),
        k(random_keys(g, {p.batch, p.kv_heads, p.nk, p.dk}, kt)),
        v(random_keys(g, {p.batch, p.kv_heads, p.nk, p.dv}, vt)) {}
};

inline Score random_score(Rng& g, const Problem& p, int64_t keys, int kind) {
  Score s;
  if (kind & 1) s.softcap = 3;
  if (kind & 2)
    for (int64_t h = 0; h < p.heads; ++h) s.alibi.push_back(std::ldexp(1.0f, -int(h) - 1));
  if (kind & 4) {
    const DType types[] = {DType::f32, DType::f16, DType::bf16};
    s.bias = random_tensor(g, {coin(g) ? 1 : p.batch, coin(g) ? 1 : p.heads, p.nq, keys},
                           types[pick(g, 0, 2)]);
    const float ban = -kInfinity;
    for (int64_t i = 0; i < p.nq; ++i)
      for (int64_t j = 0; j < keys; ++j) {
        if (!coin(g, i == 3 ? 1.0 : 0.1)) continue;  // row 3 may read nothing
        View one = s.bias.view;
        one.data = one.at(0, 0, i) + j * one.stride[3];
        one.size = {1, 1, 1, 1};
        write_row(one, 0, 0, 0, &ban);
      }
    if (coin(g))
      for (int64_t h = 0; h < p.heads; ++h) s.bias_scale.push_back(float(h) - 0.5f);
  }
  if (kind & 8) {
    s.key_bias = random_tensor(g, {coin(g) ? 1 : p.batch, coin(g) ? 1 : p.kv_heads, 1, keys});
  }
  return s;
}

inline float& cell(const Tensor& t, int64_t b, int64_t h, int64_t i, int64_t c) {
  return reinterpret_cast<float*>(t.view.at(b, h, i))[c];
}

struct Result {
  Tensor out, lse;
};

inline Result run(const char* impl, const Plan& plan, const View& q, const View& k, const View& v,
                  DType type = DType::f32, int threads = 1) {
  const Problem& p = plan.problem;
  Result r{make_tensor(type, {p.batch, p.heads, p.nq, p.dv}),
           make_tensor(type == DType::f64 ? type : DType::f32, {p.batch, p.heads, p.nq, 1})};
  RunOptions o;
  o.impl = impl;
  o.threads = threads;
  Out out;
  out.out = r.out.view;
  out.lse = r.lse.view;
  attend(plan, q, k, v, out, o);
  return r;
}

inline double element(const Tensor& t, int64_t b, int64_t h, int64_t i, int64_t c) {
  View one = t.view;
  one.data = t.view.at(b, h, i) + c * t.view.stride[3];
  one.size = {1, 1, 1, 1};
  double x;
  read_row(one, 0, 0, 0, &x);
  return x;
}

inline void judge(const Plan& plan, const View& q, const View& k, const View& v,
                  const Result& got) {
  Out out;
  out.out = got.out.view;
  out.lse = got.lse.view;
  const ref::Verdict verdict = ref::judge(plan, q, k, v, out, 1);
  EXPECT_TRUE(verdict.passed()) << plan.problem.str() << ": " << verdict.failure;
}

inline void check(const Plan& plan, const View& q, const View& k, const View& v,
                  DType type = DType::f32, int threads = 1) {
  judge(plan, q, k, v, run("cpu", plan, q, k, v, type, threads));
}

inline void check(const Plan& plan, const Qkv& t, DType out = DType::f32, int threads = 1) {
  check(plan, t.q.view, t.k.view, t.v.view, out, threads);
}

}  // namespace regard::test
