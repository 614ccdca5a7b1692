// Judging the CPU kernels: the reference in fp64, and a naive f32 implementation whose own error
// sets the tolerance.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "random_plan.h"
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

// One row in f32, the way one would write it first: two passes, plain sums.
struct NaiveRow {
  std::vector<float> out;
  double lse = 0;
  double largest = 0;  // the largest |weight * value| term of any output element
};

struct NaiveKeys {
  int64_t n;
  std::vector<float> k, v, weight;
};

inline NaiveKeys naive_keys(const Plan& plan, const View& k, const View& v, int64_t b, int64_t h) {
  const Problem& p = plan.problem;
  const Branch& br = plan.branches[0];
  const int64_t block = br.source.kind == SourceKind::pooled ? br.source.block : 1;
  NaiveKeys out{source_keys(p, br), {}, {}, {}};
  std::vector<float> row(size_t(std::max(p.dk, p.dv)) + 32);
  const auto pool = [&](const View& x, int64_t d, std::vector<float>& to) {
    to.assign(size_t(out.n * d), 0);
    for (int64_t j = 0; j < p.nk; ++j) {
      const int64_t first = j / block * block, count = std::min(block, p.nk - first);
      read_row(x, b, h, j, row.data());
      for (int64_t c = 0; c < d; ++c) to[size_t(j / block * d + c)] += row[size_t(c)] / count;
    }
  };
  pool(k, p.dk, out.k);
  pool(v, p.dv, out.v);
  for (int64_t j = 0; j < out.n; ++j)
    out.weight.push_back(block == 1 ? 0 : std::log(float(std::min(block, p.nk - j * block))));
  return out;
}

inline float naive_score(const Plan& plan, const NaiveKeys& keys, const float* q, int64_t b,
                         int64_t h, int64_t i, int64_t j) {
  const Problem& p = plan.problem;
  const Branch& br = plan.branches[0];
  const int64_t block = br.source.kind == SourceKind::pooled ? br.source.block : 1;
  const Score& s = br.score;
  float x = 0;
  for (int64_t c = 0; c < p.dk; ++c) x += q[c] * keys.k[size_t(j * p.dk + c)];
  x *= p.scale;
  if (s.softcap > 0) x = s.softcap * std::tanh(x / s.softcap);
  if (!s.alibi.empty()) {
    int64_t at = i + p.offset;
    for (size_t n = 0; n + 1 < p.cu_q.size(); ++n)
      if (p.cu_q[n] <= i && i < p.cu_q[n + 1]) at = i - p.cu_q[n + 1] + p.cu_k[n + 1];
    x -= s.alibi[size_t(h)] * float(std::abs(at - (std::min((j + 1) * block, p.nk) - 1)));
  }
  if (const View& v = s.bias.view) {
    View one = v;
    one.data = v.at(v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i) + j * v.stride[3];
    one.size = {1, 1, 1, 1};
    float bias;
    read_row(one, 0, 0, 0, &bias);
    const float slope = s.bias_scale.empty() ? 1.0f : s.bias_scale[size_t(h)];
    x = bias == -kInfinity ? bias : x + slope * bias;
  }
  if (const View& v = s.key_bias.view) {
    x += reinterpret_cast<const float*>(
        v.at(v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h / p.group(), 0))[j];
  }
  return x + keys.weight[size_t(j)];
}

inline NaiveRow naive_row(const Plan& plan, const NaiveKeys& keys, const BitMask& pairs,
                          const float* q, int64_t b, int64_t h, int64_t i) {
  const Norm& norm = plan.branches[0].norm;
  const int64_t dv = plan.problem.dv;
  const bool sigmoid = norm.kind == NormKind::sigmoid;
  std::vector<float> s(size_t(keys.n), -kInfinity);
  float max = norm.kind == NormKind::softmax_sink ? norm.sink[size_t(h)] : -kInfinity;
  for (int64_t j = 0; j < keys.n; ++j) {
    if (!pairs.get(b, h, i, j)) continue;
    s[size_t(j)] = naive_score(plan, keys, q, b, h, i, j);
    max = std::max(max, s[size_t(j)]);
  }
  float sum = norm.kind == NormKind::softmax_sink && max > -kInfinity
                  ? std::exp(norm.sink[size_t(h)] - max)
                  : 0;
  NaiveRow r{std::vector<float>(size_t(dv), 0.0f), 0, 0};
  for (int64_t j = 0; j < keys.n; ++j) {
    if (s[size_t(j)] == -kInfinity) continue;
    const float w = sigmoid ? 1 / (1 + std::exp(-(s[size_t(j)] + norm.shift)))
                            : std::exp(s[size_t(j)] - max);
    sum += w;
    for (int64_t c = 0; c < dv; ++c) {
      const float term = w * keys.v[size_t(j * dv + c)];
      r.out[size_t(c)] += term;
      r.largest = std::max<double>(r.largest, std::abs(term));
    }
  }
  r.lse = sum == 0 ? -kInfinity : (sigmoid ? 0 : max) + std::log(sum);
  if (sigmoid || sum == 0) return r;
  for (float& x : r.out) x /= sum;
  r.largest /= sum;
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

// Error of `got` against the reference: at most twice the naive implementation's over the whole
// tensor, plus 4 ulps of the row's largest term and half an ulp of the output's own type. Classes
// (finite, NaN, infinite) must agree everywhere.
inline void judge(const Plan& plan, const View& q, const View& k, const View& v, const Result& got,
                  DType type = DType::f32) {
  const Problem& p = plan.problem;
  const Result want = run("ref", plan, q, k, v, DType::f64);
  const BitMask pairs = expand(plan, 0);
  const double ulp = std::ldexp(1.0, -23);
  const double cast = type == DType::f16 ? 0x1p-11 : type == DType::bf16 ? 0x1p-8 : 0;
  std::vector<float> query(size_t(p.dk));
  double naive_out = 0, naive_lse = 0;
  std::vector<double> largest;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      const NaiveKeys keys = naive_keys(plan, k, v, b, h / p.group());
      for (int64_t i = 0; i < p.nq; ++i) {
        read_row(q, b, h, i, query.data());
        const NaiveRow row = naive_row(plan, keys, pairs, query.data(), b, h, i);
        largest.push_back(row.largest);
        for (int64_t c = 0; c < p.dv; ++c) {
          const double e = std::abs(row.out[size_t(c)] - element(want.out, b, h, i, c));
          if (std::isfinite(e)) naive_out = std::max(naive_out, e);
        }
        const double e = std::abs(row.lse - element(want.lse, b, h, i, 0));
        if (std::isfinite(e)) naive_lse = std::max(naive_lse, e);
      }
    }
  size_t n = 0;
  int reported = 0;
  const auto check = [&](const char* what, double g, double w, double bound, int64_t b, int64_t h,
                         int64_t i, int64_t c) {
    const bool same = std::isfinite(w) ? std::abs(g - w) <= bound
                                       : (std::isnan(w) ? std::isnan(g) : g == w);
    if (same || ++reported > 5) return;
    ADD_FAILURE() << what << "[" << b << "," << h << "," << i << "," << c << "] = " << g
                  << ", reference " << w << ", off by " << g - w << ", bound " << bound << "; "
                  << p.str();
  };
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i, ++n) {
        const double term = std::isfinite(largest[n]) ? largest[n] : 0;
        for (int64_t c = 0; c < p.dv; ++c) {
          const double w = element(want.out, b, h, i, c);
          check("out", element(got.out, b, h, i, c), w,
                2 * naive_out + 4 * ulp * term + cast * std::abs(w) + 1e-37, b, h, i, c);
        }
        const double w = element(want.lse, b, h, i, 0);
        check("lse", element(got.lse, b, h, i, 0), w,
              2 * naive_lse + 4 * ulp * std::max(1.0, std::abs(w)), b, h, i, 0);
      }
}

inline void check(const Plan& plan, const View& q, const View& k, const View& v,
                  DType type = DType::f32, int threads = 1) {
  judge(plan, q, k, v, run("cpu", plan, q, k, v, type, threads), type);
}

}  // namespace regard::test
