// Cover as an iterator: the keys of one row tile, in packed tiles of up to 64. Layer: cpu.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/items.h"

namespace regard::cpu {

struct KeyTile {
  int n = 0;                   // keys in it
  int32_t id[kKeys] = {};      // past n: INT32_MAX, which no range allows
  int32_t low = 0, high = 0;   // least and greatest of the n
  bool run = false;            // ids rise by one
  bool some_forbidden = true;  // false: the plan vouches that the rule allows every pair
  int32_t first() const { return id[0]; }
};

// One row of a list as one stream of keys, so that short tiles share a packed one.
class ListKeys {
 public:
  // order: who stands at each place of the keys' axis; null: the list's places are keys.
  ListKeys(const IndexList& list, int64_t row, int64_t nk, const uint32_t* order)
      : index_(list.index.data() + list.start[row]),
        order_(order),
        bk_(list.bk),
        entries_(list.start[row + 1] - list.start[row]) {
    if (entries_ == 0) return;
    const int64_t last = int64_t(column(entries_ - 1)) * bk_;
    keys_ = (entries_ - 1) * bk_ + std::min<int64_t>(bk_, nk - last);
  }

  int64_t tiles() const { return (keys_ + kKeys - 1) / kKeys; }

  void get(int64_t t, KeyTile& out) const {
    out.n = int(std::min<int64_t>(kKeys, keys_ - t * kKeys));
    out.some_forbidden = false;
    int64_t e = t * kKeys / bk_, offset = t * kKeys % bk_;
    for (int j = 0; j < out.n; ++e, offset = 0) {
      if (index_[e] & IndexList::kBoundary) out.some_forbidden = true;
      const int64_t first = int64_t(column(e)) * bk_;
      for (; offset < bk_ && j < out.n; ++offset) out.id[j++] = int32_t(first + offset);
    }
    out.low = out.id[0], out.high = out.id[out.n - 1];
    out.run = !order_ && out.high - out.low == out.n - 1;
    if (!order_) return;
    for (int j = 0; j < out.n; ++j) out.id[j] = int32_t(order_[out.id[j]]);
    const auto [low, high] = std::minmax_element(out.id, out.id + out.n);
    out.low = *low, out.high = *high;
  }

 private:
  uint32_t column(int64_t e) const { return index_[e] & ~IndexList::kBoundary; }

  const uint32_t *index_, *order_;
  int64_t bk_, entries_, keys_ = 0;
};

// All and Band read the union of the rows' ranges, cut at multiples of 64 keys; Tiles and Columns
// one list after the other.
class KeyStream {
 public:
  KeyStream(const Work& w, const RowTile& t) : w_(w), nk_(w.problem.nk) {
    if (t.list_row >= 0) {
      const Permutation* keys = w.branch->order.keys.get();
      const uint32_t* order = keys ? keys->row(t.b, t.h0, w.problem.heads) : nullptr;
      for (const IndexList* list : w.lists) {
        lists_.push_back(ListKeys(*list, t.list_row, nk_, order));
        tiles_ += lists_.back().tiles();
      }
      return;
    }
    int64_t lo = nk_, hi = 0, sink = 0;
    for (int64_t i = t.i0; i < t.i0 + t.queries; ++i) {
      sink = std::max<int64_t>(sink, w.ranges->sink[i]);
      if (w.ranges->lo[i] >= w.ranges->hi[i]) continue;
      lo = std::min<int64_t>(lo, w.ranges->lo[i]);
      hi = std::max<int64_t>(hi, w.ranges->hi[i]);
    }
    if (lo >= hi) lo = hi = sink;
    if ((sink + kKeys - 1) / kKeys * kKeys > lo / kKeys * kKeys) lo = sink > 0 ? 0 : lo;
    lo_ = lo;
    hi_ = std::max(hi, sink);
    sink_ = lo == 0 ? 0 : sink;
    sink_tiles_ = (sink_ + kKeys - 1) / kKeys;
    tiles_ = sink_tiles_ + (hi_ > lo_ ? (hi_ + kKeys - 1) / kKeys - lo_ / kKeys : 0);
  }

  int64_t tiles() const { return tiles_; }

  void get(int64_t t, KeyTile& out) const {
    if (!lists_.empty()) {
      auto list = lists_.begin();
      for (; t >= list->tiles(); ++list) t -= list->tiles();
      list->get(t, out);
    } else if (t < sink_tiles_) {
      from_run(t * kKeys, std::min<int64_t>((t + 1) * kKeys, sink_), out);
    } else {
      const int64_t c = lo_ / kKeys + t - sink_tiles_;
      from_run(std::max(lo_, c * kKeys), std::min(hi_, (c + 1) * kKeys), out);
    }
    for (int j = out.n; j < kKeys; ++j) out.id[j] = std::numeric_limits<int32_t>::max();
  }

 private:
  static void from_run(int64_t begin, int64_t end, KeyTile& out) {
    out.n = int(end - begin);
    out.run = out.some_forbidden = true;
    for (int j = 0; j < out.n; ++j) out.id[j] = int32_t(begin + j);
    out.low = int32_t(begin), out.high = int32_t(end - 1);
  }

  const Work& w_;
  int64_t nk_, tiles_ = 0;
  int64_t lo_ = 0, hi_ = 0, sink_ = 0, sink_tiles_ = 0;  // ranges: [0, sink) and [lo, hi)
  std::vector<ListKeys> lists_;
};

}  // namespace regard::cpu
