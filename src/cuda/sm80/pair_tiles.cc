#include "cuda/sm80/pair_tiles.h"

#include <algorithm>
#include <array>

namespace regard::cuda::sm80 {

PairTiles pair_tiles(const Problem& p, const IndexList& singles) {
  constexpr int64_t kKeys = 64;
  using Rows = std::array<uint64_t, kPairRows>;
  auto list = std::make_shared<IndexList>();
  list->batch = singles.batch, list->heads = singles.heads;
  list->bq = kPairRows, list->bk = int32_t(kKeys);
  list->rows = (p.nq + kPairRows - 1) / kPairRows, list->cols = (p.nk + kKeys - 1) / kKeys;
  list->start = {0};
  PairTiles out;
  int64_t before = 0;  // tiles of one query row after the other
  std::vector<int64_t> place(size_t(list->cols), -1);
  for (int64_t n = 0; n < list->batch * list->heads * list->rows; ++n) {
    const int64_t first = n % list->rows * kPairRows, last = std::min(first + kPairRows, p.nq);
    std::vector<uint32_t> tiles;
    std::vector<Rows> pairs;
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = n / list->rows * singles.rows + i / singles.bq;
      const int64_t id = singles.list_of.empty() ? row : singles.list_of[size_t(row)];
      const int64_t begin = singles.start[size_t(id)], end = singles.start[size_t(id) + 1];
      if (i == first || i % singles.bq == 0) before += (end - begin + kKeys - 1) / kKeys;
      for (int64_t e = begin; e < end; ++e) {
        const uint32_t key = singles.index[size_t(e)] & ~IndexList::kBoundary;
        int64_t& at = place[key / kKeys];
        if (at < 0) {
          at = int64_t(tiles.size());
          tiles.push_back(uint32_t(key / kKeys)), pairs.push_back({});
        }
        pairs[size_t(at)][size_t(i - first)] |= uint64_t(1) << key % kKeys;
      }
    }
    std::sort(tiles.begin(), tiles.end());
    for (const uint32_t c : tiles) {
      const Rows& rows = pairs[size_t(place[c])];
      out.pairs.insert(out.pairs.end(), rows.begin(), rows.end());
      list->index.push_back(c | IndexList::kBoundary);
      place[c] = -1;
    }
    list->start.push_back(int64_t(list->index.size()));
  }
  if (int64_t(list->index.size()) < before) out.list = std::move(list);
  return out;
}

}  // namespace regard::cuda::sm80
