// Rows of a tile that are computed together, and what their ranges have in common. Layer: cpu.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/cover.h"

namespace regard::cpu {

struct Panel {
  int64_t first = 0;       // row of the tile; its queries, acc, max and sum start there too
  int rows = 0, live = 0;  // with and without padding; only the last panel is padded
  int32_t min_lo, max_lo, min_hi, max_hi, min_sink, max_sink;

  Panel(const RowRanges& r, const RowTile& t, int64_t first_row, int n, int with_padding)
      : first(first_row), rows(with_padding), live(n) {
    constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
    min_lo = min_hi = min_sink = kNone;
    max_lo = max_hi = max_sink = 0;
    for (int64_t row = first; row < first + live; ++row) {
      const int64_t i = t.query(row);
      // An empty range reads nothing: not even the key that its bounds enclose after a min and max.
      const bool empty = r.lo[i] >= r.hi[i];
      min_lo = std::min(min_lo, empty ? kNone : r.lo[i]);
      max_lo = std::max(max_lo, empty ? kNone : r.lo[i]);
      min_hi = std::min(min_hi, empty ? 0 : r.hi[i]);
      max_hi = std::max(max_hi, empty ? 0 : r.hi[i]);
      min_sink = std::min(min_sink, r.sink[i]);
      max_sink = std::max(max_sink, r.sink[i]);
    }
  }

  bool reads(const KeyTile& k) const {
    return (min_lo <= k.high && max_hi > k.low) || max_sink > k.low;
  }
  // Keys from the tile's first on, behind which none is read.
  int reads_until(const KeyTile& k) const {
    return k.run ? std::min(k.n, std::max(max_hi, max_sink) - k.low) : k.n;
  }
  // Keys from the tile's first on, before which none is read; a multiple of `step`.
  int reads_from(const KeyTile& k, int step) const {
    return k.run && max_sink <= k.low && min_lo > k.low ? (min_lo - k.low) / step * step : 0;
  }
  bool reads_all(const KeyTile& k) const {
    return (max_lo <= k.low && min_hi > k.high) || min_sink > k.high;
  }
};

}  // namespace regard::cpu
