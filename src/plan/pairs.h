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
  // Keys that query i reads: tokens, like i. Valid until the next call. Fast when i moves inside
  // one tile row.
  const uint64_t* row(int64_t b, int64_t h, int64_t i);

 private:
  int64_t place_of(int64_t b, int64_t h, int64_t i);
  void load_list(int64_t id, const uint32_t* keys);
  void load_band(int64_t place, const uint32_t* keys);
  void set_keys(const uint32_t* keys, int64_t first, int64_t last);

  const Problem& problem_;
  const Branch& branch_;
  bool cover_;
  int64_t keys_;
  RowRanges ranges_;
  int64_t loaded_ = -1;                     // list in cover_bits_, of the keys
  const uint32_t* loaded_keys_ = nullptr;   // in this order
  const uint32_t* placed_ = nullptr;        // order that place_ undoes
  std::vector<uint32_t> place_;             // [nq]
  std::vector<uint64_t> cover_bits_, row_;  // tokens
};

// Places that a band reads from one place, as at most two runs [first, last) that do not meet.
struct BandRuns {
  int64_t first[2], last[2];
};
BandRuns band_runs(const Problem& p, const Window& band, int64_t place);

// bits[first, last) = 1
void set_bits(uint64_t* bits, int64_t first, int64_t last);

}  // namespace regard
