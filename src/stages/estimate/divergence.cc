// FlexPrefill's test of a head, and views of fewer keys. See estimate.h.
#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "stages/estimate.h"
#include "stages/matrix.h"

namespace regard::estimate {
namespace {

using Shares = std::vector<double>;

void normalise(Shares* x) {
  double sum = 0;
  for (const double v : *x) sum += v;
  for (double& v : *x) v = sum > 0 ? v / sum : 0;
}

// sum a ln(a / m), with 0 ln 0 = 0
double relative_entropy(const Shares& a, const Shares& m) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i] > 0) sum += a[i] * std::log(a[i] / m[i]);
  return sum;
}

Shares mean(const View& v, int64_t b, int64_t h, int64_t begin, int64_t end) {
  std::vector<float> rows(size_t((end - begin) * v.size[3]));
  matrix::load_rows(v, b, h, begin, end - begin, rows.data());
  Shares out(size_t(v.size[3]), 0.0);
  for (size_t i = 0; i < rows.size(); ++i) out[i % out.size()] += rows[i] / double(end - begin);
  return out;
}

}  // namespace

BlockScores divergence(const Ctx& ctx, const Inputs& x, const VerticalSlash& probe, int block) {
  const StageTimer timer(ctx, "estimate.divergence");
  const Problem& p = x.problem;
  BlockScores out{p.batch, p.heads, 1, 1, std::vector<float>(size_t(p.batch * p.heads))};
  const int64_t keys = x.causal ? std::clamp<int64_t>(p.offset + p.nq, 0, p.nk) : p.nk;
  const int64_t tiles = (keys + block - 1) / block;
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    const Shares query = mean(x.q, b, h, std::max<int64_t>(0, p.nq - block), p.nq);
    Shares seen(size_t(tiles), 0.0), guess(size_t(tiles), 0.0), middle(size_t(tiles), 0.0);
    for (int64_t j = 0; j < keys; ++j) seen[j / block] += probe.vertical[bh * probe.nk + j];
    double top = -INFINITY;
    for (int64_t c = 0; c < tiles; ++c) {
      const Shares key =
          mean(x.k, b, h / p.group(), c * block, std::min((c + 1) * int64_t(block), keys));
      for (size_t t = 0; t < key.size(); ++t) guess[c] += query[t] * key[t] * p.scale;
      top = std::max(top, guess[c]);
    }
    for (double& g : guess) g = std::exp(g - top);
    normalise(&seen);
    normalise(&guess);
    for (int64_t c = 0; c < tiles; ++c) middle[c] = (seen[c] + guess[c]) / 2;
    const double js = (relative_entropy(seen, middle) + relative_entropy(guess, middle)) / 2;
    out.s[bh] = float(std::sqrt(std::max(js, 0.0)));
  });
  return out;
}

Inputs from_key(const Inputs& x, int64_t first) {
  Inputs out = x;
  out.k = slice_tokens(x.k, first, x.problem.nk - first);
  out.v = slice_tokens(x.v, first, x.problem.nk - first);
  out.problem.nk -= first;
  out.problem.offset -= first;
  for (View* v : {&out.score.bias.view, &out.score.key_bias.view}) {
    if (!*v) continue;
    v->data = static_cast<char*>(v->data) + first * v->stride[3];
    v->size[3] -= first;
  }
  return out;
}

}  // namespace regard::estimate
