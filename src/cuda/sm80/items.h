// How one branch is cut into items, by its shape and the number of multiprocessors. Layer: cuda.
#pragma once
#include <vector>

#include "cuda/sm80/params.h"
#include "regard/plan.h"

namespace regard::cuda::sm80 {

struct Items {
  std::vector<Item> items;     // longest first
  int64_t slots = 0;           // rows of Partials; 0: every item writes the output itself
  int64_t split = 0;           // tiles of rows in several pieces
  std::vector<RowSlots> rows;  // [B * heads * nq], with `partials`
  int most = 1;                // Partials of one row
};

// How many rows share one pass over keys: all heads of a KV head wherever they read the same list,
// and neighbours that share a list; of such runs, the mean.
int64_t rows_together(const Problem& p, const Branch& b);

// `tile_rows` and `tile_keys` are the kernel's; `capacity` its blocks that run at once. With
// `partials` every item leaves Partials, otherwise those that share their rows. `keys` counts
// source keys. No item of ranges crosses a multiple of `align` queries (0: any).
Items make_items(const Problem& p, const Branch& b, const RowRanges& ranges, int64_t keys,
                 int tile_rows, int tile_keys, int64_t capacity, bool partials, int64_t align = 0);

}  // namespace regard::cuda::sm80
