// What the kernels of vertical_slash's lists are told. Layer: cuda.
#pragma once
#include <vector_types.h>

#include "cuda/stages/params.h"

namespace regard::cuda::stages {

// What rows of kSlashBlock queries read of each head's best columns and diagonals: tiles and single
// keys. `heads` are those of all batch items.
constexpr int kSlashBlock = 64, kMostSlashKeys = 1 << 18;
struct Slashes {
  const float *vertical = nullptr, *slash = nullptr;  // [heads, nk], [heads, offsets]
  uint32_t* chosen = nullptr;                         // [heads, words]: columns, as bits
  uint32_t* chosen_diagonals = nullptr;               // [heads, diagonal_words]
  int2* ranges = nullptr;                             // [together, rows, most]
  int32_t* range_count = nullptr;                     // [together, rows]
  uint64_t* tiles = nullptr;                          // [heads, rows, tile_words]; zeros before
  int64_t* start = nullptr;                           // [heads * rows + 1]
  int64_t* cut = nullptr;  // single keys that some query of their row does not see; zero before
  uint32_t* index = nullptr;
  // PlacedList::Pieces, null where they are not wanted: `most` pieces and `columns` keys a row.
  int64_t *piece_start = nullptr, *rest_start = nullptr;
  uint32_t *piece_index = nullptr, *rest_index = nullptr;
  int64_t nq = 0, nk = 0, offset = 0, offsets = 0;
  int32_t keys = 0, length = 0;  // columns and diagonals that compete: [0, keys), [0, length)
  int32_t columns = 0, diagonals = 0, forced_columns = 0, forced_diagonals = 0;
  int32_t heads = 0, rows = 0, words = 0, tile_words = 0;  // words: two a tile of keys
  int32_t diagonal_words = 0;
  int32_t first = 0, together = 0, most = 0;  // heads at a time; ranges of a row
  bool causal = true, have_ranges = false;    // have: of all heads, from an earlier launch
  int64_t range_bytes() const { return int64_t(together) * rows * (8 * int64_t(most) + 4); }
  void take_ranges(void* memory) {
    ranges = static_cast<int2*>(memory);
    range_count = reinterpret_cast<int32_t*>(ranges + int64_t(together) * rows * most);
  }
};
void launch_best_slashes(const Slashes& p, void* stream);
void launch_slash_tiles(const Slashes& p, void* stream);  // tiles, lengths of lists, cut, pieces
void launch_slash_keys(const Slashes& p, void* stream);   // after the sums of the lengths

}  // namespace regard::cuda::stages
