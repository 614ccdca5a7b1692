// SEA: an estimated attention map of few columns, widened to keys.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/order.h"
#include "stages/order/shared_lists.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::order {

Plan compressed_map(const Ctx& ctx, const Inputs& x, const Tensor& map, int64_t keys) {
  const StageTimer timer(ctx, "order.compressed_map");
  const Problem& p = x.problem;
  need_one_sequence(p, "compressed map");
  const View& v = map.view;
  if ((v.size[0] != 1 && v.size[0] != p.batch) || (v.size[1] != 1 && v.size[1] != p.heads) ||
      v.size[2] != p.nq || v.size[3] < 1 || info(v.dtype).block != 1)
    throw Error(fmt::format("compressed map {}; accepted: [1|{},1|{},{},columns]", v.shape(),
                            p.batch, p.heads, p.nq));
  const int64_t columns = v.size[3];
  std::vector<std::vector<uint32_t>> rows(size_t(p.batch * p.heads * p.nq));
  parallel_for(p.batch * p.nq, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / p.nq, i = item % p.nq;
    const int64_t n = x.causal ? std::clamp<int64_t>(i + p.offset + 1, 0, p.nk) : p.nk;
    if (n == 0) return;
    std::vector<float> row(size_t(p.heads * columns));
    for (int64_t h = 0; h < p.heads; ++h)
      read_row(v, v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i, &row[size_t(h * columns)]);
    const double budget =
        std::nearbyint(double(p.heads) * double(keys) * double(columns) / double(n));
    const double most = double(p.heads * columns);
    std::vector<char> kept(row.size(), 0);
    for (const int64_t c :
         top_indices(row.data(), int64_t(row.size()), int64_t(std::clamp(budget, 1.0, most))))
      kept[size_t(c)] = 1;
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t j = 0; j < n; ++j) {
        const double at = (double(j) + 0.5) / double(n) * double(columns) - 1e-4;
        if (kept[size_t(h * columns + std::max<int64_t>(0, int64_t(std::floor(at))))])
          rows[size_t((b * p.heads + h) * p.nq + i)].push_back(uint32_t(j));
      }
  });
  SharedLists lists(p.batch, p.heads, p.nq);
  for (int64_t bh = 0; bh < p.batch * p.heads; ++bh)
    for (int64_t i = 0; i < p.nq; ++i) {
      lists.open(bh) = std::move(rows[size_t(bh * p.nq + i)]);
      lists.reads_last(bh, i);
    }
  return Plan::columns(p, lists.columns(p.nk));
}

}  // namespace regard::order
