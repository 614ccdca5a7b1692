// See lists.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "regard/status.h"
#include "stages/lists.h"
#include "stages/rows.h"

namespace regard::lists {

namespace {

bool is_global(int64_t position, const Window& band, const std::vector<int64_t>& global) {
  return position >= 0 &&
         (position < band.sink || std::binary_search(global.begin(), global.end(), position));
}

}  // namespace

IndexList global_tokens(const Problem& p, const Window& band, const std::vector<int64_t>& global) {
  need_one_sequence(p, "global tokens");
  Branch local;
  local.cover.kind = CoverKind::band;
  local.cover.band = band;
  const RowRanges inside = row_ranges(p, local);
  IndexList out;
  out.rows = p.nq;
  out.cols = p.nk;
  out.bq = out.bk = 1;
  out.start.push_back(0);
  for (int64_t i = 0; i < p.nq; ++i) {
    const auto add = [&](int64_t j) {
      if (j >= inside.sink[i] && (j < inside.lo[i] || j >= inside.hi[i]))
        out.index.push_back(uint32_t(j));
    };
    if (is_global(i + p.offset, band, global)) {
      for (int64_t j = 0; j < p.nk; ++j) add(j);
    } else {
      for (int64_t j = 0; j < std::min(band.sink, p.nk); ++j) add(j);
      for (int64_t j : global)
        if (j >= band.sink) add(j);
    }
    out.start.push_back(int64_t(out.index.size()));
  }
  return out;
}

Plan dilated(const Ctx& ctx, const Inputs& x, const Window& band, int64_t dilation,
             const std::vector<int64_t>& global) {
  const int64_t nk = x.problem.nk;
  return by_position(ctx, x, 1, [&](int64_t, int64_t i, Ranges* out) {
    out->push_back({0, is_global(i, band, global) ? nk : band.sink});
    for (const int64_t j : global) out->push_back({j, j + 1});
    const int64_t left = std::min(band.left, i / dilation), right = std::min(band.right, nk);
    every(i - left * dilation, 1, dilation, std::min(nk, i + right * dilation + 1), out);
  });
}

std::vector<int64_t> positions(const Problem& p, const Tensor& tokens) {
  std::vector<int64_t> out;
  const View& v = tokens.view;
  if (!v) return out;
  std::vector<double> row(size_t(v.size[3]));
  for (int64_t a = 0; a < v.size[0]; ++a)
    for (int64_t b = 0; b < v.size[1]; ++b)
      for (int64_t c = 0; c < v.size[2]; ++c) {
        read_row(v, a, b, c, row.data());
        for (double x : row) {
          if (!(x >= 0 && x < double(p.nk) && x == std::floor(x)))
            throw Error(
                fmt::format("global tokens: {} is no position; accepted: whole numbers in "
                            "[0, {})",
                            x, p.nk));
          out.push_back(int64_t(x));
        }
      }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace regard::lists
