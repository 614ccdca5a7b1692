// lower: marks the tiles in which some pair is forbidden, drops those in which all are.
#include <algorithm>

#include "regard/plan.h"

namespace regard {
namespace {

enum class Fill { empty, some, full };

// How much of queries [i0, i1) x keys [j0, j1) the ranges allow. `lo_max` and the like are over the
// queries of the tile row.
struct Extremes {
  int64_t lo_min = INT64_MAX, lo_max = 0, hi_min = INT64_MAX, hi_max = 0;
  int64_t sink_min = INT64_MAX, sink_max = 0;
  Extremes(const RowRanges& r, int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; ++i) {
      lo_min = std::min<int64_t>(lo_min, r.lo[i]), lo_max = std::max<int64_t>(lo_max, r.lo[i]);
      hi_min = std::min<int64_t>(hi_min, r.hi[i]), hi_max = std::max<int64_t>(hi_max, r.hi[i]);
      sink_min = std::min<int64_t>(sink_min, r.sink[i]);
      sink_max = std::max<int64_t>(sink_max, r.sink[i]);
    }
  }
};

Fill range_fill(const RowRanges& r, const Extremes& e, int64_t i0, int64_t i1, int64_t j0,
                int64_t j1) {
  if ((e.lo_max <= j0 && j1 <= e.hi_min) || j1 <= e.sink_min) return Fill::full;
  if (!(e.lo_min < j1 && j0 < e.hi_max) && j0 >= e.sink_max) return Fill::empty;
  for (int64_t i = i0; i < i1; ++i)
    if (std::max<int64_t>(r.lo[i], j0) < std::min<int64_t>(r.hi[i], j1) || j0 < r.sink[i])
      return Fill::some;
  return Fill::empty;
}

Fill mask_fill(const BitMask& m, int64_t b, int64_t h, int64_t i0, int64_t i1, int64_t j0,
               int64_t j1) {
  bool any = false, all = true;
  const int64_t first = j0 >> 6, last = (j1 - 1) >> 6;
  for (int64_t i = i0; i < i1; ++i) {
    const uint64_t* row = m.row(b, h, i);
    for (int64_t w = first; w <= last; ++w) {
      uint64_t inside = ~0ull;
      if (w == first) inside &= ~0ull << (j0 & 63);
      if (w == last) inside &= ~0ull >> (63 - ((j1 - 1) & 63));
      any |= (row[w] & inside) != 0;
      all &= (row[w] & inside) == inside;
    }
  }
  return all ? Fill::full : any ? Fill::some : Fill::empty;
}

// The fill over every (batch, head) that reads list row (lb, lh).
Fill mask_fill(const BitMask& m, const Problem& p, const IndexList& l, int64_t lb, int64_t lh,
               int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const int64_t b0 = l.batch == 1 ? 0 : lb, b1 = l.batch == 1 ? m.batch : lb + 1;
  const int64_t per = p.heads / l.heads;
  const int64_t h0 = lh * per, h1 = m.heads == 1 ? h0 + 1 : h0 + per;
  bool any = false, all = true;
  for (int64_t b = b0; b < b1; ++b)
    for (int64_t h = h0; h < h1; ++h) {
      const Fill f = mask_fill(m, b, h, i0, i1, j0, j1);
      any |= f != Fill::empty;
      all &= f == Fill::full;
    }
  return all ? Fill::full : any ? Fill::some : Fill::empty;
}

std::shared_ptr<const IndexList> lower_list(const Problem& p, const Branch& br) {
  const IndexList& in = *br.cover.list;
  const RowRanges ranges = row_ranges(p, br);
  const int64_t keys = source_keys(p, br);
  auto out = std::make_shared<IndexList>(in);
  out->index.clear();
  for (int64_t lb = 0, id = 0; lb < in.batch; ++lb)
    for (int64_t lh = 0; lh < in.heads; ++lh)
      for (int64_t r = 0; r < in.rows; ++r, ++id) {
        const int64_t i0 = r * in.bq, i1 = std::min<int64_t>(i0 + in.bq, p.nq);
        const Extremes extremes(ranges, i0, i1);
        for (int64_t e = in.start[id]; e < in.start[id + 1]; ++e) {
          const uint32_t col = in.index[e] & ~IndexList::kBoundary;
          const int64_t j0 = int64_t(col) * in.bk, j1 = std::min<int64_t>(j0 + in.bk, keys);
          Fill f = range_fill(ranges, extremes, i0, i1, j0, j1);
          if (f != Fill::empty && br.rule.mask) {
            const Fill m = mask_fill(*br.rule.mask, p, in, lb, lh, i0, i1, j0, j1);
            f = m == Fill::empty ? m : m == Fill::some ? Fill::some : f;
          }
          if (f == Fill::empty) continue;
          out->index.push_back(f == Fill::full ? col : col | IndexList::kBoundary);
        }
        out->start[id + 1] = int64_t(out->index.size());
      }
  return out;
}

}  // namespace

Plan& Plan::lower() {
  if (lowered) return *this;
  for (Branch& b : branches)
    if (b.cover.list) b.cover.list = lower_list(problem, b);
  lowered = true;
  return *this;
}

}  // namespace regard
