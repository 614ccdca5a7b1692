// Gates with weights: SeerAttention's blocks, dynamic mask attention's keys. See estimate.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/estimate.h"
#include "stages/matrix.h"
#include "stages/rotate.h"
#include "stages/rows.h"
#include "stages/slopes.h"

namespace regard::estimate {
namespace {

void need_shape(const char* what, const Tensor& t, int64_t heads, int64_t in, int64_t out) {
  const View& v = t.view;
  if (v.size[0] != 1 || v.size[1] != heads || v.size[2] != in || (out > 0 && v.size[3] != out) ||
      info(v.dtype).block != 1)
    throw Error(fmt::format("{} {}; accepted: [1,{},{},{}]", what, v.shape(), heads, in,
                            out > 0 ? fmt::format("{}", out) : "any"));
}

// x W for one row; W of head h.
std::vector<float> project(const std::vector<float>& x, const Tensor& w, int64_t h) {
  const int64_t out = w.view.size[3];
  std::vector<double> sum(size_t(out), 0.0), row(static_cast<size_t>(out));
  for (size_t t = 0; t < x.size(); ++t) {
    read_row(w.view, 0, h, int64_t(t), row.data());
    for (int64_t c = 0; c < out; ++c) sum[c] += double(x[t]) * row[c];
  }
  return {sum.begin(), sum.end()};
}

class Gate {
 public:
  Gate(const Inputs& x, int block, double rope) : x_(x), block_(block), rope_(rope) {}

  // Pools of a block of tokens: mean, or maximum, minimum and mean side by side.
  std::vector<float> pool(const View& v, int64_t b, int64_t h, int64_t tile, int64_t offset,
                          bool three) const {
    const int64_t depth = v.size[3], begin = tile * block_;
    const int64_t count = std::min<int64_t>(block_, v.size[2] - begin);
    std::vector<float> rows(size_t(count * depth));
    matrix::load_rows(v, b, h, begin, count, rows.data());
    std::vector<float> high(size_t(depth), -INFINITY), low(size_t(depth), INFINITY), out;
    std::vector<double> sum(size_t(depth), 0.0);
    for (int64_t i = 0; i < count; ++i) {
      float* row = &rows[i * depth];
      if (rope_ > 0) rotate(row, depth, -double(begin + i + offset), rope_);
      for (int64_t t = 0; t < depth; ++t) {
        high[t] = std::max(high[t], row[t]);
        low[t] = std::min(low[t], row[t]);
        sum[t] += row[t];
      }
    }
    if (three) {
      out = high;
      out.insert(out.end(), low.begin(), low.end());
    }
    for (const double s : sum) out.push_back(float(s / double(count)));
    return out;
  }

  std::vector<float> vector(const View& v, int64_t b, int64_t h, int64_t tile, int64_t offset,
                            const Tensor& w, int64_t head, bool three) const {
    std::vector<float> out = project(pool(v, b, h, tile, offset, three), w, head);
    if (rope_ > 0) rotate(out.data(), int64_t(out.size()), double(tile * block_ + offset), rope_);
    return out;
  }

 private:
  const Inputs& x_;
  const int64_t block_;
  const double rope_;
};

}  // namespace

BlockScores learned_gate(const Ctx& ctx, const Inputs& x, const Tensor& q_gate,
                         const Tensor& k_gate, int block, double rope) {
  const StageTimer timer(ctx, "estimate.learned_gate");
  const Problem& p = x.problem;
  need_one_sequence(p, "learned gate");
  need_shape("q_gate", q_gate, p.heads, p.dk, 0);
  const int64_t width = q_gate.view.size[3];
  need_shape("k_gate", k_gate, p.heads, 3 * p.dk, width);
  BlockScores out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.rows = (p.nq + block - 1) / block;
  out.cols = (p.nk + block - 1) / block;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols),
               -std::numeric_limits<float>::infinity());
  const Gate gate(x, block, rope);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    std::vector<std::vector<float>> keys;
    for (int64_t c = 0; c < out.cols; ++c)
      keys.push_back(gate.vector(x.k, b, h / p.group(), c, 0, k_gate, h, true));
    for (int64_t r = 0; r < out.rows; ++r) {
      const std::vector<float> query = gate.vector(x.q, b, h, r, p.offset, q_gate, h, false);
      const int64_t last = p.offset + std::min((r + 1) * int64_t(block), p.nq) - 1;
      for (int64_t c = 0; c < out.cols && (!x.causal || c * block <= last); ++c) {
        double dot = 0;
        for (int64_t t = 0; t < width; ++t) dot += double(query[t]) * keys[c][t];
        out.row(b, h, r)[c] = float(dot / std::sqrt(double(width)));
      }
    }
  });
  return out;
}

Tensor value_bias(const Ctx& ctx, const Inputs& x, const Tensor& dt, const Tensor& a,
                  bool exponential) {
  const StageTimer timer(ctx, "estimate.value_bias");
  const Problem& p = x.problem;
  need_shape("dt", dt, 1, p.kv_heads * p.dv, p.kv_heads);
  const std::vector<float> factor = per_head("a", p.kv_heads, a);
  Tensor out = make_tensor(DType::f32, {p.batch, p.kv_heads, 1, p.nk});
  const View& own = x.score.key_bias.view;
  parallel_for(p.batch * p.nk, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / p.nk, j = item % p.nk;
    std::vector<float> values(size_t(p.kv_heads * p.dv));
    for (int64_t h = 0; h < p.kv_heads; ++h) matrix::load_rows(x.v, b, h, j, 1, &values[h * p.dv]);
    const std::vector<float> z = project(values, dt, 0);
    for (int64_t h = 0; h < p.kv_heads; ++h) {
      const double soft = z[h] > 30 ? z[h] : std::log1p(std::exp(double(z[h])));
      const double bias = exponential ? std::exp(factor[h] * soft) : factor[h] * soft;
      reinterpret_cast<float*>(out.view.at(b, h, 0))[j] = float(bias);
    }
  });
  if (!own) return out;
  std::vector<float> more(size_t(p.nk));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.kv_heads; ++h) {
      read_row(own, own.size[0] == 1 ? 0 : b, own.size[1] == 1 ? 0 : h, 0, more.data());
      float* bias = reinterpret_cast<float*>(out.view.at(b, h, 0));
      for (int64_t j = 0; j < p.nk; ++j) bias[j] += more[j];
    }
  return out;
}

}  // namespace regard::estimate
