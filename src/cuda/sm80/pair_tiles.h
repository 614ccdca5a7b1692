// Single keys that neighbouring queries do not share, as tiles of 64 keys for 32 queries with a bit
// a pair: weights of features go pair by pair, but not a query at a time. Layer: cuda.
#pragma once
#include <memory>
#include <vector>

#include "cuda/sm80/params.h"
#include "regard/plan.h"

namespace regard::cuda::sm80 {

struct PairTiles {
  std::shared_ptr<IndexList> list;  // null: fewer tiles as they are
  std::vector<uint64_t> pairs;      // [entries][kPairRows]
};

PairTiles pair_tiles(const Problem& p, const IndexList& singles);

}  // namespace regard::cuda::sm80
