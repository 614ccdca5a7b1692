// The naive implementation is written the way one would write it first: two passes a row, plain f32
// sums, one rounding after the other; in bf16 and int8 every factor of a product is rounded on its
// own, 8-bit levels being symmetric with one step for 32 channels. It shares nothing with the
// kernels.
#include "ref/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "ref/ref.h"

namespace regard::ref {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

int64_t block_of(const Branch& br) {
  return br.source.kind == SourceKind::pooled ? br.source.block : 1;
}

float rounded(float x, DType t) {
  if (t == DType::f16) return f16_to_f32(f32_to_f16(x));
  if (t == DType::bf16) return bf16_to_f32(f32_to_bf16(x));
  return x;
}

void round_bf16(std::vector<float>* x) {
  for (float& e : *x) e = bf16_to_f32(f32_to_bf16(e));
}

// Rows of `d` numbers to 255 levels by blocks of 32.
void round_int8(std::vector<float>* x, int64_t d) {
  for (size_t row = 0; row < x->size(); row += size_t(d))
    for (size_t c = row; c < row + size_t(d); c += 32) {
      const size_t end = std::min(c + 32, row + size_t(d));
      float largest = 0;
      for (size_t i = c; i < end; ++i) largest = std::max(largest, std::abs((*x)[i]));
      const float step = largest / 127;
      if (!(step > 0) || std::isinf(step)) continue;
      for (size_t i = c; i < end; ++i) (*x)[i] = std::round((*x)[i] / step) * step;
    }
}

// phi(x), plainly.
std::vector<float> features(const Problem& p, const Weight& weight, const float* x) {
  std::vector<float> out, direction(static_cast<size_t>(p.dk));
  float sum = 0, squares = 0;
  for (int64_t c = 0; c < p.dk; ++c) sum += std::exp(x[c]), squares += x[c] * x[c];
  for (int64_t c = 0; c < p.dk && weight.kind != WeightKind::random; ++c) {
    const float e = x[c], elu = e > 0 ? e + 1 : std::exp(e);
    out.push_back(weight.kind == WeightKind::softmax ? std::exp(e) / sum
                  : weight.kind == WeightKind::elu   ? elu
                                                     : std::max(e, 0.0f));
  }
  const View& w = weight.directions.view;
  for (int64_t r = 0; w && r < w.size[2]; ++r) {
    float dot = 0;
    read_row(w, 0, 0, r, direction.data());
    for (int64_t c = 0; c < p.dk; ++c) dot += direction[size_t(c)] * x[c];
    out.push_back(std::exp(std::sqrt(p.scale) * dot - p.scale * squares / 2) /
                  std::sqrt(float(w.size[2])));
  }
  return out;
}

// One head's keys and values in f32, means over a block where the source is pooled, values mapped
// where it says so; rounded as the branch's numeric asks. A cache of 8-bit (or fewer) levels needs
// no rounding to such.
struct Keys {
  int64_t n = 0, dk = 0, dv = 0;
  std::vector<float> k, v, weight;
  std::vector<std::vector<float>> phi;  // where weights are of features
  DType operands;

  Keys(const Problem& p, const Branch& br, const View& kv, const View& vv, int64_t b, int64_t h,
       DType type)
      : operands(type) {
    const Source& source = br.source;
    const bool given = source.kind == SourceKind::given;
    const int64_t block = block_of(br);
    n = source_keys(p, br), dk = p.dk, dv = p.dv;
    pool(given ? source.keys.view : kv, b, h, given ? n : p.nk, block, dk, &k);
    pool(given ? source.values.view : vv, b, h, given ? n : p.nk, block, dv, &v);
    for (int64_t j = 0; j < n; ++j) {
      const float tokens = float(std::min(block, p.nk - j * block));
      weight.push_back(block == 1 ? 0 : std::log(tokens));
    }
    map_values(source.value_map.view, h);
    for (int64_t j = 0; br.weight.kind != WeightKind::exponential && j < n; ++j)
      phi.push_back(features(p, br.weight, &k[size_t(j * dk)]));
    const std::string& numeric = br.numeric;
    const bool levels = info(kv.dtype).block > 1 && block == 1;
    if (numeric == "bf16") round_bf16(&k);
    if (numeric == "int8" && !levels) round_int8(&k, dk);
    if (numeric != "f32") round_bf16(&v);
  }

 private:
  void map_values(const View& map, int64_t h) {
    if (!map) return;
    std::vector<float> rows(size_t((dv + 1) * dv)), x;
    for (int64_t r = 0; r <= dv; ++r)
      read_row(map, 0, map.size[1] == 1 ? 0 : h, r, &rows[size_t(r * dv)]);
    for (int64_t j = 0; j < n; ++j) {
      x.assign(&rows[size_t(dv * dv)], &rows[0] + (dv + 1) * dv);
      for (int64_t r = 0; r < dv; ++r)
        for (int64_t c = 0; c < dv; ++c)
          x[size_t(c)] += v[size_t(j * dv + r)] * rows[size_t(r * dv + c)];
      for (int64_t c = 0; c < dv; ++c) v[size_t(j * dv + c)] = rounded(x[size_t(c)], operands);
    }
  }

  void pool(const View& x, int64_t b, int64_t h, int64_t tokens, int64_t block, int64_t d,
            std::vector<float>* to) {
    std::vector<float> row(size_t(d) + 32);
    to->assign(size_t(n * d), 0);
    for (int64_t j = 0; j < tokens; ++j) {
      const int64_t first = j / block * block;
      const float count = float(std::min(block, tokens - first));
      read_row(x, b, h, j, row.data());
      for (int64_t c = 0; c < d; ++c) (*to)[size_t(j / block * d + c)] += row[size_t(c)] / count;
    }
    for (float& x : *to) x = rounded(x, operands);
  }
};

float element(const View& v, int64_t b, int64_t h, int64_t i, int64_t j) {
  View one = v;
  one.data = v.at(v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i) + j * v.stride[3];
  one.size = {1, 1, 1, 1};
  float x;
  read_row(one, 0, 0, 0, &x);
  return x;
}

int64_t position(const Problem& p, int64_t i) {
  for (size_t n = 0; n + 1 < p.cu_q.size(); ++n)
    if (p.cu_q[n] <= i && i < p.cu_q[n + 1]) return i - p.cu_q[n + 1] + p.cu_k[n + 1];
  return i + p.offset;
}

struct At {
  int64_t b, h, i;
};

float logit(const Problem& p, const Score& s, const Keys& keys, const float* q, At at, int64_t j) {
  float x = 0;
  for (int64_t c = 0; c < p.dk; ++c) x += q[c] * keys.k[size_t(j * p.dk + c)];
  x *= p.scale;
  if (s.softcap > 0) x = s.softcap * std::tanh(x / s.softcap);
  if (!s.alibi.empty()) x -= s.alibi[size_t(at.h)] * float(std::abs(position(p, at.i) - j));
  if (s.bias) {
    const float bias = element(s.bias.view, at.b, at.h, at.i, j);
    const float slope = s.bias_scale.empty() ? 1.0f : s.bias_scale[size_t(at.h)];
    x = bias == -kInf ? bias : x + slope * bias;
  }
  if (s.key_bias) x += element(s.key_bias.view, at.b, at.h / p.group(), 0, j);
  return x + keys.weight[size_t(j)];
}

struct Row {
  std::vector<float> out;
  float lse = -kInf;
  double largest = 0;  // |weight * value|, over keys and channels
};

// Blocks of 64 keys far below the greatest logit so far, as Branch::value_skip has it.
std::vector<bool> skipped(const std::vector<float>& s, float skip) {
  std::vector<bool> out(s.size());
  float so_far = -kInf;
  for (size_t first = 0; skip > 0 && first < s.size(); first += 64) {
    const size_t last = std::min(first + 64, s.size());
    const float top = *std::max_element(s.begin() + int64_t(first), s.begin() + int64_t(last));
    for (size_t j = first; j < last; ++j) out[j] = top < so_far - skip;
    so_far = std::max(so_far, top);
  }
  return out;
}

Row naive(const Problem& p, const Branch& br, const Norm& norm, const Keys& keys,
          const BitMask& pairs, const float* q, At at) {
  const bool rounds = br.numeric != "f32";
  const std::vector<float> phi =
      keys.phi.empty() ? std::vector<float>() : features(p, br.weight, q);
  const bool sigmoid = norm.kind == NormKind::sigmoid, sink = norm.kind == NormKind::softmax_sink;
  std::vector<float> s(size_t(keys.n), -kInf);
  float max = sink ? norm.sink[size_t(at.h)] : -kInf;
  for (int64_t j = 0; j < keys.n; ++j) {
    if (!pairs.get(at.b, at.h, at.i, j)) continue;
    float product = 0;
    for (size_t r = 0; r < phi.size(); ++r) product += phi[r] * keys.phi[size_t(j)][r];
    s[size_t(j)] = phi.empty() ? logit(p, br.score, keys, q, at, j) : std::log(product);
    max = std::max(max, s[size_t(j)]);
  }
  float sum = sink && max > -kInf ? std::exp(norm.sink[size_t(at.h)] - max) : 0;
  const std::vector<bool> skip = skipped(s, br.value_skip);
  Row r;
  r.out.assign(size_t(keys.dv), 0);
  for (int64_t j = 0; j < keys.n; ++j) {
    const float x = s[size_t(j)];
    if (x == -kInf) continue;
    float w = sigmoid ? 1 / (1 + std::exp(-(x + norm.shift))) : std::exp(x - max);
    if (rounds) w = bf16_to_f32(f32_to_bf16(w));
    sum += w;
    if (skip[size_t(j)]) continue;
    const float operand = rounded(w, keys.operands);
    for (int64_t c = 0; c < keys.dv; ++c) {
      const float term = operand * keys.v[size_t(j * keys.dv + c)];
      r.out[size_t(c)] += term;
      r.largest = std::max<double>(r.largest, std::abs(term));
    }
  }
  if (sum == 0) return r;
  r.lse = (sigmoid ? 0 : max) + std::log(sum);
  if (sigmoid) return r;
  for (float& x : r.out) x /= sum;
  r.largest /= sum;
  return r;
}

// The branches of one row, put together. Under one softmax they come without its sink.
Row combined(const Plan& plan, const std::vector<Row>& rows, At at) {
  if (plan.combine == Combine::only) return rows[0];
  const Norm& norm = plan.branches[0].norm;
  const bool gated = plan.combine == Combine::gated, sigmoid = norm.kind == NormKind::sigmoid;
  const bool sink = !gated && norm.kind == NormKind::softmax_sink;
  float max = sink ? norm.sink[size_t(at.h)] : -kInf;
  for (const Row& r : rows) max = std::max(max, r.lse);
  float sum = sink && max > -kInf ? std::exp(norm.sink[size_t(at.h)] - max) : 0;
  Row all;
  all.out.assign(rows[0].out.size(), 0);
  for (size_t n = 0; n < rows.size(); ++n) {
    const float weight = rows[n].lse == -kInf ? 0 : std::exp(rows[n].lse - max);
    const float factor = gated     ? element(plan.gate.view, at.b, at.h, at.i, int64_t(n))
                         : sigmoid ? 1
                                   : weight;
    sum += weight;
    for (size_t c = 0; c < all.out.size(); ++c) all.out[c] += factor * rows[n].out[c];
    all.largest = std::max(all.largest, std::abs(double(factor)) * rows[n].largest);
  }
  if (sum == 0) return all;
  all.lse = max + std::log(sum);
  if (gated || sigmoid) return all;
  for (float& x : all.out) x /= sum;
  all.largest /= sum;
  return all;
}

// What the naive implementation gets wrong, and the scale of every row.
struct Yardstick {
  double out = 0, lse = 0;
  std::vector<double> largest;  // [B, heads, nq]
};

// NaN and infinite differences say nothing about rounding.
void raise(double* worst, double error) {
  if (std::isfinite(error)) *worst = std::max(*worst, error);
}

Yardstick measure(const Plan& plan, const View& q, const View& k, const View& v, const Out& want,
                  int threads, DType operands) {
  const Problem& p = plan.problem;
  std::vector<BitMask> pairs;
  std::vector<Norm> norms;
  for (size_t n = 0; n < plan.branches.size(); ++n) {
    pairs.push_back(expand(plan, int(n)));
    norms.push_back(plan.branches[n].norm);
    if (plan.combine == Combine::same && norms[n].kind == NormKind::softmax_sink) norms[n] = {};
  }
  Yardstick y;
  y.largest.resize(size_t(p.batch * p.heads * p.nq));
  for (int64_t bh = 0; bh < p.batch * p.heads; ++bh) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    std::vector<Keys> keys;
    for (const Branch& br : plan.branches)
      keys.emplace_back(p, br, k, v, b, h / p.group(), operands);
    std::vector<Row> rows(size_t(p.nq));
    parallel_for(p.nq, threads, [&](int64_t i, int) {
      std::vector<Row> branches;
      for (size_t n = 0; n < plan.branches.size(); ++n) {
        const Branch& br = plan.branches[n];
        std::vector<float> query(size_t(p.dk));
        read_row(q, b, h, i, query.data());
        if (br.numeric == "bf16") round_bf16(&query);
        if (br.numeric == "int8") round_int8(&query, p.dk);
        branches.push_back(naive(p, br, norms[n], keys[n], pairs[n], query.data(), {b, h, i}));
      }
      rows[size_t(i)] = combined(plan, branches, {b, h, i});
    });
    std::vector<double> exact(size_t(p.dv));
    for (int64_t i = 0; i < p.nq; ++i) {
      const Row& row = rows[size_t(i)];
      read_row(want.out, b, h, i, exact.data());
      double& largest = y.largest[size_t(bh * p.nq + i)] = row.largest;
      // Where the naive way ends in inf - inf, what is left is one key's value: the output.
      if (!std::isfinite(largest)) largest = 0;
      for (double x : exact)
        if (!std::isfinite(row.largest) && std::isfinite(x))
          largest = std::max(largest, std::abs(x));
      for (int64_t c = 0; c < p.dv; ++c)
        raise(&y.out, std::abs(double(row.out[size_t(c)]) - exact[size_t(c)]));
      double lse;
      read_row(want.lse, b, h, i, &lse);
      raise(&y.lse, std::abs(double(row.lse) - lse));
    }
  }
  return y;
}

class Comparison {
 public:
  explicit Comparison(Verdict* verdict) : v_(verdict) {}

  void element(const char* what, At at, int64_t c, double got, double want, double bound) {
    const bool lse = what[0] == 'l';
    const double error = std::abs(got - want);
    double &worst = lse ? v_->lse_error : v_->error, &its = lse ? v_->lse_bound : v_->bound;
    if (std::isfinite(error) && (its == 0 || error / bound > worst / its)) {
      worst = error;
      its = bound;
    }
    const bool same = std::isfinite(want) ? error <= bound
                      : std::isnan(want)  ? std::isnan(got)
                                          : got == want;
    if (same || ++failures_ > 4) return;
    v_->failure +=
        fmt::format("{}{}[{},{},{},{}] = {}, reference {}, bound {:.2g}", failures_ > 1 ? "; " : "",
                    what, at.b, at.h, at.i, c, got, want, bound);
  }

 private:
  Verdict* v_;
  int failures_ = 0;
};

}  // namespace

Verdict judge(const Plan& plan, const View& q, const View& k, const View& v, const Out& got,
              int threads, DType operands) {
  const Problem& p = plan.problem;
  const Tensor out = make_tensor(DType::f64, {p.batch, p.heads, p.nq, p.dv});
  const Tensor lse = make_tensor(DType::f64, {p.batch, p.heads, p.nq, 1});
  const Out want{out.view, lse.view, {}};
  attend(plan, q, k, v, want, threads);
  const Yardstick y = measure(plan, q, k, v, want, threads, operands);
  // "A few ulps": 4 of f32's; of bf16's, which are what a test would want to see, half a one.
  const double ulps = plan.branches[0].numeric == "f32" ? 4 * 0x1p-23 : 0x1p-8;
  const DType type = got.out.dtype;
  const double cast = type == DType::f16 ? 0x1p-11 : type == DType::bf16 ? 0x1p-8 : 0;
  // Below f16's normal range its half ulp is absolute.
  const double floor = type == DType::f16 ? 0x1p-25 : 1e-37;
  Verdict verdict;
  Comparison compare(&verdict);
  std::vector<double> g(size_t(p.dv)), w(size_t(p.dv));
  double errors = 0, squares = 0;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i) {
        read_row(got.out, b, h, i, g.data());
        read_row(want.out, b, h, i, w.data());
        const double term = ulps * y.largest[size_t((b * p.heads + h) * p.nq + i)];
        for (size_t c = 0; c < g.size(); ++c) {
          compare.element("out", {b, h, i}, int64_t(c), g[c], w[c],
                          2 * y.out + term + cast * std::abs(w[c]) + floor);
          if (!std::isfinite(w[c])) continue;
          errors += (g[c] - w[c]) * (g[c] - w[c]);
          squares += w[c] * w[c];
        }
        if (!got.lse) continue;
        double gl, wl;
        read_row(got.lse, b, h, i, &gl);
        read_row(want.lse, b, h, i, &wl);
        compare.element("lse", {b, h, i}, 0, gl, wl,
                        2 * y.lse + ulps * std::max(1.0, std::abs(wl)));
      }
  verdict.relative = squares > 0 ? std::sqrt(errors / squares) : 0;
  return verdict;
}

}  // namespace regard::ref
