// What one tile of query rows reads under linear attention: blocks of keys that all its rows read
// whole, and single keys. Layer: cpu.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "plan/work.h"

namespace regard::cpu {

// Keys a block, whose sum of phi(k) v^T is kept: the plan's tiles where they are not too small.
inline int64_t state_block(const Branch& br) {
  return br.cover.kind == CoverKind::tiles && br.cover.list->bk >= 8 ? br.cover.list->bk : 64;
}

struct LinearTile {
  int64_t b = 0, h = 0, i0 = 0, i1 = 0;
  std::vector<int64_t> whole;     // blocks, ascending
  std::vector<uint32_t> singles;  // keys, ascending; each row may read some of them
};

class LinearKeys {
 public:
  explicit LinearKeys(const Work& w) : w_(w), block_(state_block(*w.branch)) {}

  int64_t rows_a_tile() const { return w_.lists.empty() ? 64 : w_.lists[0]->bq; }
  int64_t tiles() const { return (w_.problem.nq + rows_a_tile() - 1) / rows_a_tile(); }

  LinearTile tile(int64_t b, int64_t h, int64_t r) const {
    const int64_t first = r * rows_a_tile();
    LinearTile t{b, h, first, std::min(first + rows_a_tile(), w_.problem.nq), {}, {}};
    w_.lists.empty() ? from_ranges(&t) : from_list(r, &t);
    return t;
  }

  bool reads(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const RowRanges& r = *w_.ranges;
    if (!((r.lo[i] <= j && j < r.hi[i]) || j < r.sink[i])) return false;
    const BitMask* mask = w_.branch->rule.mask.get();
    return !mask || mask->get(b, h, i, j);
  }

 private:
  void add_singles(int64_t first, int64_t last, LinearTile* t) const {
    for (int64_t j = first; j < last; ++j) t->singles.push_back(uint32_t(j));
  }

  void from_list(int64_t r, LinearTile* t) const {
    const IndexList& l = *w_.lists[0];
    const int64_t id = l.row_id(t->b, t->h, r, w_.problem.heads);
    for (int64_t e = l.start[id]; e < l.start[id + 1]; ++e) {
      const int64_t c = l.index[e] & ~IndexList::kBoundary;
      const bool whole = !(l.index[e] & IndexList::kBoundary) && l.bk == block_;
      if (whole) {
        t->whole.push_back(c);
      } else {
        add_singles(c * l.bk, std::min<int64_t>((c + 1) * l.bk, w_.problem.nk), t);
      }
    }
  }

  void from_ranges(LinearTile* t) const {
    const RowRanges& r = *w_.ranges;
    for (int64_t c = 0; c * block_ < w_.problem.nk; ++c) {
      const int64_t first = c * block_, last = std::min(first + block_, w_.problem.nk);
      bool all = !w_.branch->rule.mask, any = false;
      for (int64_t i = t->i0; i < t->i1; ++i) {
        all &= (r.lo[i] <= first && last <= r.hi[i]) || last <= r.sink[i];
        any |= std::max<int64_t>(r.lo[i], first) < std::min<int64_t>(r.hi[i], last) ||
               first < r.sink[i];
      }
      if (all) {
        t->whole.push_back(c);
      } else if (any) {
        add_singles(first, last, t);
      }
    }
  }

  const Work& w_;
  int64_t block_;
};

}  // namespace regard::cpu
