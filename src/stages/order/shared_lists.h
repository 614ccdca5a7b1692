// Lists of single keys, each read by some of the rows (one row a query place). Layer: stages.
// Nobody but the bodies of stages includes this.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/tiles.h"

namespace regard::order {

// Heads are filled apart, so threads may take one each.
class SharedLists {
 public:
  SharedLists(int64_t batch, int64_t heads, int64_t rows)
      : batch_(batch),
        heads_(heads),
        rows_(rows),
        heads_lists_(size_t(batch * heads)),
        list_of_(size_t(batch * heads * rows)) {}

  // A new, empty list of head `bh` (counted over batch and heads); keys are to rise.
  std::vector<uint32_t>& open(int64_t bh) { return heads_lists_[size_t(bh)].emplace_back(); }
  int64_t lists(int64_t bh) const { return int64_t(heads_lists_[size_t(bh)].size()); }
  void reads_last(int64_t bh, int64_t row) { reads(bh, row, lists(bh) - 1); }
  void reads(int64_t bh, int64_t row, int64_t list) {
    list_of_[size_t(bh * rows_ + row)] = uint32_t(list);
  }

  IndexList columns(int64_t nk) const {
    IndexList out;
    out.batch = batch_, out.heads = heads_, out.rows = rows_, out.cols = nk;
    out.bq = out.bk = 1;
    out.start.push_back(0);
    out.list_of = list_of_;
    size_t total = 0;
    for (const auto& lists : heads_lists_)
      for (const auto& list : lists) total += list.size();
    out.index.reserve(total);
    for (size_t bh = 0; bh < heads_lists_.size(); ++bh) {
      for (int64_t n = 0; n < rows_; ++n)
        out.list_of[bh * size_t(rows_) + size_t(n)] += uint32_t(out.lists());
      for (const std::vector<uint32_t>& list : heads_lists_[bh]) {
        out.index.insert(out.index.end(), list.begin(), list.end());
        out.start.push_back(int64_t(out.index.size()));
      }
    }
    return out;
  }

 private:
  int64_t batch_, heads_, rows_;
  std::vector<std::vector<std::vector<uint32_t>>> heads_lists_;
  std::vector<uint32_t> list_of_;  // counted inside the head
};

}  // namespace regard::order
