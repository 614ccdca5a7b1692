// FlexPrefill's test of a head, and views of fewer keys. See estimate.h.
#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "stages/device.h"
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

// Means of tokens [first, last) in blocks: [size[0], size[1], blocks, channels].
std::vector<double> means(const Ctx& ctx, const View& v, int64_t first, int64_t last,
                          int64_t block) {
  const int64_t depth = v.size[3], blocks = (last - first + block - 1) / block;
  std::vector<double> out(size_t(v.size[0] * v.size[1] * blocks * depth), 0.0);
  parallel_for(v.size[0] * v.size[1] * blocks, ctx.threads, [&](int64_t item, int) {
    const int64_t bh = item / blocks, begin = first + item % blocks * block;
    const int64_t count = std::min(block, last - begin);
    std::vector<float> rows(size_t(count * depth));
    matrix::load_rows(v, bh / v.size[1], bh % v.size[1], begin, count, rows.data());
    double* const sum = &out[item * depth];
    for (int64_t i = 0; i < count * depth; ++i) sum[i % depth] += rows[i];
    for (int64_t t = 0; t < depth; ++t) sum[t] /= double(count);
  });
  return out;
}

// Scaled products of the mean of the last `block` queries with the means of the first `keys` keys
// in blocks, channel by channel: [batch, heads, tiles].
std::vector<double> mean_products(const Ctx& ctx, const Inputs& x, int64_t keys, int64_t block) {
  if (x.q.device == Device::cuda) return device::mean_products(x, keys, block, ctx.stream);
  const Problem& p = x.problem;
  const int64_t tiles = (keys + block - 1) / block;
  const std::vector<double> queries =
      means(ctx, x.q, std::max<int64_t>(0, p.nq - block), p.nq, block);
  const std::vector<double> key_means = means(ctx, x.k, 0, keys, block);
  std::vector<double> out(size_t(p.batch * p.heads * tiles), 0.0);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, kv = bh % p.heads / p.group();
    const double* const query = &queries[bh * p.dk];
    for (int64_t c = 0; c < tiles; ++c) {
      const double* const key = &key_means[((b * p.kv_heads + kv) * tiles + c) * p.dk];
      double& sum = out[bh * tiles + c];
      for (int64_t t = 0; t < p.dk; ++t) sum += query[t] * key[t] * p.scale;
    }
  });
  return out;
}

}  // namespace

BlockScores divergence(const Ctx& ctx, const Inputs& x, const ProbeTiles& probe) {
  const StageTimer timer(ctx, "estimate.divergence");
  const Problem& p = x.problem;
  const int64_t block = probe.block;
  BlockScores out{p.batch, p.heads, 1, 1, Scores(size_t(p.batch * p.heads))};
  const int64_t keys = std::clamp<int64_t>(p.offset + p.nq, 0, p.nk);
  const int64_t tiles = (keys + block - 1) / block;
  const std::vector<double> guesses = mean_products(ctx, x, keys, block);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    Shares seen(&probe.vertical[bh * probe.columns], &probe.vertical[bh * probe.columns] + tiles);
    Shares guess(&guesses[bh * tiles], &guesses[bh * tiles] + tiles), middle(size_t(tiles), 0.0);
    double top = -INFINITY;
    for (const double g : guess) top = std::max(top, g);
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
