// Items: how one call is cut into pieces of work, by its shape alone. Layer: cpu.
//
// A row tile is the (query, head) rows that share one pass over the keys: all heads of a KV head
// wherever they read the same key list, so each packed key serves the whole group. Its pass is cut
// into splits when there are few row tiles. Nothing here knows the number of threads: that is why
// results have the same bits for any number.
#pragma once
#include <cstdint>
#include <vector>

#include "plan/work.h"

namespace regard::cpu {

inline constexpr int kKeys = 64;  // keys a packed tile; a multiple of every vector width

// Row tiles of at most so many rows read K and V where they lie instead of packing them.
inline constexpr int kFewRows = 16;

struct RowTile {
  int64_t b = 0;
  int64_t h0 = 0, heads = 0;    // query heads [h0, h0 + heads), one KV head
  int64_t i0 = 0, queries = 0;  // row r of the tile is place i0 + r / heads, head h0 + r % heads
  const uint32_t* token = nullptr;  // queries in order: who stands at place n of head h0 + h is
  int64_t token_stride = 0;         // token[h * token_stride + n]; null: query n
  int64_t list_row = -1;            // Tiles, Columns: row of the index list
  int64_t key_tiles = 0;
  int64_t splits = 1;
  int64_t first_slot = 0;  // splits > 1: where its Partials start, in rows
  int64_t rows() const { return heads * queries; }
  // The query of row n * heads + h.
  int64_t query(int64_t n, int64_t h) const {
    return token ? int64_t(token[h * token_stride + i0 + n]) : i0 + n;
  }
  int64_t query(int64_t row) const { return query(row / heads, row % heads); }
  int64_t kv_head(const Problem& p) const { return h0 / p.group(); }
};

struct Item {
  int64_t tile = 0, split = 0;
  int64_t begin = 0, end = 0;  // key tiles
};

struct Items {
  std::vector<RowTile> tiles;
  std::vector<Item> items;  // longest first
  int64_t max_rows = 0;     // of any row tile
  int64_t slots = 0;        // rows of Partials that splits leave
};
Items make_items(const Work& w);

}  // namespace regard::cpu
