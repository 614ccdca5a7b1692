// Clusters of queries against clusters of keys.
#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "stages/matrix.h"
#include "stages/order.h"
#include "stages/order/shared_lists.h"

namespace regard::order {

BlockScores cluster_mass(const Ctx& ctx, const Problem& p, const Clusters& queries,
                         const Clusters& keys) {
  const StageTimer timer(ctx, "order.cluster_mass");
  BlockScores out;
  out.batch = p.batch, out.heads = p.heads;
  out.rows = queries.labels.count, out.cols = keys.labels.count;
  out.s.assign(size_t(out.batch * out.heads * out.rows * out.cols), 0.0f);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads, kv = h / p.group();
    std::vector<double> tokens(size_t(out.cols), 0.0);
    for (int64_t j = 0; j < keys.labels.n; ++j) ++tokens[keys.labels.row(b, kv)[j]];
    std::vector<matrix::Line> panel(static_cast<size_t>(keys.depth));
    std::vector<float> dots(size_t(out.rows * matrix::kPanel));
    for (int64_t c0 = 0; c0 < out.cols; c0 += matrix::kPanel) {
      const int64_t live = std::min(matrix::kPanel, out.cols - c0);
      matrix::pack_panel(keys.row(b, kv) + c0 * keys.depth, live, keys.depth, panel.data());
      matrix::multiply(queries.row(b, h), out.rows, keys.depth, panel.data(), dots.data(),
                       matrix::kPanel);
      for (int64_t r = 0; r < out.rows; ++r)
        std::copy_n(&dots[r * matrix::kPanel], live, out.row(b, h, r) + c0);
    }
    for (int64_t r = 0; r < out.rows; ++r) {
      float* s = out.row(b, h, r);
      const double top = double(p.scale) * matrix::max_of(s, out.cols);
      double sum = 0;
      std::vector<double> mass(size_t(out.cols), 0.0);
      for (int64_t c = 0; c < out.cols; ++c) {
        const double m = tokens[c] * std::exp(double(p.scale) * s[c] - top);
        if (!std::isnan(m)) sum += mass[c] = m;
      }
      for (int64_t c = 0; c < out.cols; ++c) s[c] = sum > 0 ? float(mass[c] / sum) : 0;
    }
  });
  return out;
}

Plan clusters(const Ctx& ctx, const Problem& p, const Labels& queries, const Labels& keys,
              const TileBits& keep) {
  const StageTimer timer(ctx, "order.clusters");
  const auto places = by_label(queries);
  SharedLists lists(p.batch, p.heads, p.nq);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    const int32_t* query = queries.row(b, h);
    const int32_t* key = keys.row(b, h / p.group());
    int64_t last = -1;
    for (int64_t n = 0; n < p.nq; ++n) {
      const int32_t c = query[places->token[bh * p.nq + n]];
      if (c != last) {
        std::vector<uint32_t>& list = lists.open(bh);
        for (int64_t j = 0; j < p.nk; ++j)
          if (keep.get(b, h, c, key[j])) list.push_back(uint32_t(j));
        last = c;
      }
      lists.reads_last(bh, n);
    }
  });
  return Plan::columns(p, lists.columns(p.nk)).order({places, nullptr});
}

}  // namespace regard::order
