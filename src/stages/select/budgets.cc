// Amounts that differ by head and row. See select.h and amounts.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "regard/status.h"
#include "stages/amounts.h"
#include "stages/select.h"

namespace regard {

std::vector<double> covering_budgets(const Inputs& x, const estimate::VerticalSlash& probe, int bq,
                                     int bk, double gamma) {
  const Problem& p = x.problem;
  const int64_t rows = (p.nq + bq - 1) / bq, cols = (p.nk + bk - 1) / bk;
  std::vector<double> out;
  for (int64_t bh = 0; bh < p.batch * p.heads; ++bh) {
    std::vector<double> mass(size_t(cols), 0.0);
    for (int64_t j = 0; j < p.nk; ++j) mass[j / bk] += probe.vertical[bh * p.nk + j];
    std::sort(mass.begin(), mass.end(), std::greater<>());
    const double goal = gamma * std::accumulate(mass.begin(), mass.end(), 0.0);
    int64_t needed = 0;
    for (double sum = 0; needed < cols && !(sum >= goal && needed > 0); ++needed)
      sum += mass[needed];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t last = p.offset + std::min((r + 1) * int64_t(bq), p.nq) - 1;
      const int64_t seen = !x.causal ? cols : last < 0 ? 0 : std::min(last / bk + 1, cols);
      out.push_back(double((needed * seen + cols - 1) / cols));
    }
  }
  return out;
}

std::vector<double> adaptive_budgets(const BlockScores& mass, const TileBits& kept,
                                     double sparsity) {
  std::vector<double> out;
  for (int64_t b = 0; b < mass.batch; ++b) {
    std::vector<double> recall(size_t(mass.heads), 0.0), share(recall.size(), sparsity);
    for (int64_t h = 0; h < mass.heads; ++h) {
      double inside = 0, total = 0;
      for (int64_t r = 0; r < mass.rows; ++r)
        for (int64_t c = 0; c < mass.cols; ++c) {
          total += mass.row(b, h, r)[c];
          if (kept.get(b, h, r, c)) inside += mass.row(b, h, r)[c];
        }
      recall[h] = total > 0 ? inside / total : 0;
    }
    std::vector<int64_t> order(recall.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t c) { return recall[a] > recall[c]; });
    const int64_t good =
        std::count_if(recall.begin(), recall.end(), [](double r) { return r > 0.8; });
    const int64_t n = std::min(good, mass.heads / 2);
    for (int64_t i = 0; i < n; ++i) {
      share[order[i]] = (1 + sparsity) / 2;
      share[order[mass.heads - 1 - i]] = std::max(0.0, (3 * sparsity - 1) / 2);
    }
    for (int64_t h = 0; h < mass.heads; ++h)
      out.insert(out.end(), size_t(mass.rows), (1 - share[h]) * double(mass.cols));
  }
  return out;
}

std::vector<double> amounts_of_heads(const Tensor& of_heads, const BlockScores& scores) {
  std::vector<double> heads(size_t(scores.heads)), out;
  if (!of_heads) return out;
  const View& v = of_heads.view;
  if (v.size != std::array<int64_t, 4>{1, 1, 1, scores.heads} || info(v.dtype).block != 1)
    throw Error(fmt::format("amounts of heads {}; accepted: [1,1,1,{}], one a head", v.shape(),
                            scores.heads));
  read_row(v, 0, 0, 0, heads.data());
  for (int64_t bh = 0; bh < scores.batch * scores.heads; ++bh)
    out.insert(out.end(), size_t(scores.rows), heads[size_t(bh % scores.heads)]);
  return out;
}

}  // namespace regard
