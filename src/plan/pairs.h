// The allowed pairs of a branch as bits, one query row at a time. For checks, pictures and counts;
// kernels read the lists themselves. Layer: plan.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/plan.h"

namespace regard {

class PairRows {
 public:
  // Without `cover`, the pairs of the rule alone: what exact attention reads.
  PairRows(const Problem& p, const Branch& branch, bool cover = true);

  int64_t keys() const { return keys_; }
  int64_t words() const { return (keys_ + 63) / 64; }
  // Valid until the next call. Fast when i moves inside one tile row.
  const uint64_t* row(int64_t b, int64_t h, int64_t i);

 private:
  void load_list_row(int64_t id);

  const Problem& problem_;
  const Branch& branch_;
  bool cover_;
  int64_t keys_;
  RowRanges ranges_;
  int64_t loaded_ = -1;
  std::vector<uint64_t> list_, row_;
};

// bits[first, last) = 1
void set_bits(uint64_t* bits, int64_t first, int64_t last);

}  // namespace regard
