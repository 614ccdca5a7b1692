// MInference's probe (arXiv 2407.02490, algorithm 2): the exact attention of the strip's last
// queries, summed down columns and along diagonals. Short diagonals near the corner have fewer
// terms and are not normalised. Order of additions: products over channels ascending, each fused; a
// row's sum as matrix::sum_of; down columns and along diagonals by query within each kRows queries,
// then these sums in order.
#include <algorithm>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/device.h"
#include "stages/estimate.h"
#include "stages/lists.h"
#include "stages/rows.h"

namespace regard::estimate {
namespace {

// Queries a work item: 16 rows of 8K probabilities are half a MiB.
constexpr int64_t kRows = kProbeRows;

// What one work item adds up. Summed in the order of the items, so threads change nothing.
struct Sums {
  std::vector<float> vertical;
  std::vector<float> slash;  // backwards, offset o at [offsets - 1 - o]: rows add up forwards
};

}  // namespace

VerticalSlash on_host(VerticalSlash s) {
  if (!s.device) return s;
  const std::vector<float> sums = s.device->fetch();
  const auto slash = sums.begin() + s.batch * s.heads * s.nk;
  s.vertical.assign(sums.begin(), slash), s.slash.assign(slash, sums.end());
  s.device.reset();
  lists::force(s, s.forced_columns, s.forced_diagonals);
  return s;
}

VerticalSlash vertical_slash(const Ctx& ctx, const Inputs& x, int last) {
  const StageTimer timer(ctx, "estimate.vertical_slash");
  const Problem& p = x.problem;
  if (last < 1) throw Error("vertical slash: the probe needs at least one query");
  if (x.q.device == Device::cuda) {
    need_one_sequence(p, "vertical slash");
    return device::vertical_slash(x, last, ctx.stream);
  }
  VerticalSlash out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.nk = p.nk;
  out.offsets = std::max(p.nk, p.offset + p.nq);
  out.vertical.assign(size_t(p.batch * p.heads * out.nk), 0.0f);
  out.slash.assign(size_t(p.batch * p.heads * out.offsets), 0.0f);

  const ProbabilityRows probabilities(x);
  const int64_t probes = std::min<int64_t>(last, p.nq), first = p.nq - probes;
  const int64_t parts = (probes + kRows - 1) / kRows;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(x.k, b, kv, ctx.threads);
      std::vector<Sums> sums(size_t(p.group() * parts));
      parallel_for(p.group() * parts, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / parts, begin = first + item % parts * kRows;
        const int64_t count = std::min(kRows, p.nq - begin), stride = probabilities.stride();
        thread_local std::vector<float> rows;
        rows.resize(size_t(kRows * stride));
        float inverse[kRows];
        probabilities.run(keys, b, h, begin, count, rows.data(), stride, inverse);
        Sums& s = sums[item];
        s.vertical.assign(size_t(out.nk), 0.0f);
        s.slash.assign(size_t(out.offsets), 0.0f);
        for (int64_t i = 0; i < count; ++i) {
          float* row = &rows[i * stride];
          const int64_t position = begin + i + p.offset;
          const int64_t n = std::clamp<int64_t>(position + 1, 0, p.nk);
          float* const slash = s.slash.data() + (n > 0 ? out.offsets - 1 - position : 0);
          matrix::add_to_both(s.vertical.data(), slash, row, inverse[i], n);
          if (x.causal) continue;  // nothing lies ahead
          matrix::scale_cap(row + n, p.nk - n, inverse[i], 0);
          matrix::add(s.vertical.data() + n, row + n, p.nk - n);
        }
      });
      for (int64_t item = 0; item < p.group() * parts; ++item) {
        const int64_t bh = b * p.heads + kv * p.group() + item / parts;
        matrix::add(&out.vertical[bh * out.nk], sums[item].vertical.data(), out.nk);
        for (int64_t o = 0; o < out.offsets; ++o)
          out.slash[bh * out.offsets + o] += sums[item].slash[out.offsets - 1 - o];
      }
    }
  return out;
}

}  // namespace regard::estimate
