#include "stages/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "algebra/exponential.h"
#include "regard/status.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

Branch exact_branch(const Inputs& x) {
  Branch b;
  b.rule.causal = x.causal;
  return b;
}

}  // namespace

void need_one_sequence(const Problem& p, const char* stage) {
  if (p.cu_q.empty()) return;
  throw Error(fmt::format("{}: {} packed sequences; accepted: one", stage, p.cu_q.size() - 1));
}

ProbabilityRows::ProbabilityRows(const Inputs& x)
    : x_(x), ranges_(row_ranges(x.problem, exact_branch(x))) {
  need_one_sequence(x.problem, "attention probabilities");
}

void ProbabilityRows::add_biases(int64_t b, int64_t h, int64_t i, int64_t lo, int64_t hi,
                                 float* row) const {
  const Score& s = x_.score;
  if (!s.alibi.empty()) {
    const int64_t position = i + x_.problem.offset;
    for (int64_t j = lo; j < hi; ++j) row[j] -= s.alibi[h] * float(std::abs(position - j));
  }
  if (const View& v = s.bias.view; v) {
    std::vector<float> bias(size_t(x_.problem.nk));
    read_row(v, v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i, bias.data());
    const float factor = s.bias_scale.empty() ? 1.0f : s.bias_scale[h];
    for (int64_t j = lo; j < hi; ++j) row[j] += factor * bias[j];
  }
  if (const View& v = s.key_bias.view; v) {
    std::vector<float> bias(size_t(x_.problem.nk));
    read_row(v, v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h / x_.problem.group(), 0,
             bias.data());
    for (int64_t j = lo; j < hi; ++j) row[j] += bias[j];
  }
}

float ProbabilityRows::weights(int64_t b, int64_t h, int64_t i, float* row) const {
  const int64_t nk = x_.problem.nk;
  const int64_t lo = ranges_.lo[i], hi = std::min<int64_t>(ranges_.hi[i], nk);
  std::fill(row, row + std::min(lo, nk), 0.0f);
  std::fill(row + std::max<int64_t>(hi, 0), row + nk, 0.0f);
  if (lo >= hi) return 0;
  const Score& s = x_.score;
  const bool bare = s.softcap == 0 && s.alibi.empty() && !s.bias && !s.key_bias;
  float sum = 0, top = -kInf;
  if (bare) {
    top = matrix::scaled_max(row + lo, hi - lo, x_.problem.scale);
  } else {
    matrix::scale_cap(row + lo, hi - lo, x_.problem.scale, s.softcap);
    add_biases(b, h, i, lo, hi, row);
    top = matrix::max_of(row + lo, hi - lo);
  }
  if (x_.norm.kind == NormKind::sigmoid) {
    for (int64_t j = lo; j < hi; ++j) {
      row[j] = 1 / (1 + std::exp(-(row[j] + x_.norm.shift)));
      sum += row[j];
    }
  } else {
    const float sink = x_.norm.kind == NormKind::softmax_sink ? x_.norm.sink[h] : -kInf;
    top = std::max(top, sink);
    if (top == -kInf) top = 0;  // every pair is forbidden: all weights become 0
    sum = matrix::exponentials(row + lo, hi - lo, top) + exponential::of(sink - top);
  }
  return sum == 0 ? 0 : 1 / sum;
}

void ProbabilityRows::run(const matrix::Packed& keys, int64_t b, int64_t h, int64_t first,
                          int64_t count, float* p, int64_t stride, float* inverse) const {
  std::vector<float> q(size_t(count * x_.problem.dk));
  matrix::load_rows(x_.q, b, h, first, count, q.data());
  int64_t end = 0;  // keys past every row's range need no product
  for (int64_t i = first; i < first + count; ++i) end = std::max<int64_t>(end, ranges_.hi[i]);
  for (int64_t panel = 0; panel < matrix::panels(end); ++panel)
    matrix::multiply(q.data(), count, x_.problem.dk, keys.panel(panel), p + panel * matrix::kPanel,
                     stride);
  for (int64_t i = 0; i < count; ++i) {
    float* const row = p + i * stride;
    const float factor = weights(b, h, first + i, row);
    const int64_t lo = ranges_.lo[first + i];
    const int64_t hi = std::min<int64_t>(ranges_.hi[first + i], x_.problem.nk);
    if (inverse)
      inverse[i] = factor;
    else if (lo < hi)
      matrix::scale_cap(row + lo, hi - lo, factor, 0);
  }
}

}  // namespace regard
