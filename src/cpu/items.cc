#include "cpu/items.h"

#include <algorithm>

#include "cpu/cover.h"

namespace regard::cpu {
namespace {

// Rows of packed Q and of the accumulator together stay within 384 KiB, so that the packed key tile
// and its successor keep their place in a 1 MiB L2; 384 rows make packing a key tile 2 to 4 % of
// using it.
int64_t row_cap(const Problem& p) {
  const int64_t fits = (384 << 10) / (4 * (p.dk + p.dv));
  return std::clamp<int64_t>(fits / 12 * 12, 12, 384);
}

// Enough pieces for the cores of a large machine to share, and for two to end within 3 % of each
// other; each long enough (512 keys) that the merge at the end costs little.
constexpr int64_t kPieces = 48, kMinTiles = 8;

void add_rows(const Work& w, int64_t b, int64_t h0, int64_t heads, int64_t i0, int64_t i1,
              int64_t list_row, Items& out) {
  const int64_t cap = row_cap(w.problem);
  const int64_t head_step = std::min(heads, cap);
  const int64_t step = std::max<int64_t>(1, cap / head_step);
  for (int64_t h = h0; h < h0 + heads; h += head_step) {
    for (int64_t i = i0; i < i1; i += step) {
      RowTile t;
      t.b = b;
      t.h0 = h;
      t.heads = std::min(head_step, h0 + heads - h);
      t.i0 = i;
      t.queries = std::min(step, i1 - i);
      t.list_row = list_row;
      if (const Permutation* o = w.branch->order.queries.get(); o && list_row >= 0) {
        t.token = o->row(b, h, w.problem.heads);
        t.token_stride = o->heads == 1 ? 0 : o->n;
      }
      t.key_tiles = KeyStream(w, t).tiles();
      out.max_rows = std::max(out.max_rows, t.rows());
      out.tiles.push_back(t);
    }
  }
}

}  // namespace

Items make_items(const Work& w) {
  const Problem& p = w.problem;
  const Cover& cover = w.branch->cover;
  const bool listed = cover.kind == CoverKind::tiles || cover.kind == CoverKind::columns;
  const Permutation* keys = w.branch->order.keys.get();
  const bool own_lists = listed && p.heads != p.kv_heads &&
                         (cover.list->heads == p.heads || (keys && keys->heads == p.heads));
  const int64_t heads = own_lists ? 1 : p.group();
  Items out;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; h += heads) {
      if (!listed) {
        add_rows(w, b, h, heads, 0, p.nq, -1, out);
        continue;
      }
      const IndexList& list = *cover.list;
      for (int64_t r = 0, end = 0; r < list.rows; r = end) {
        const int64_t id = list.row_id(b, h, r, p.heads);
        do {  // neighbours that share a list are one row tile
          ++end;
        } while (end < list.rows && list.row_id(b, h, end, p.heads) == id);
        add_rows(w, b, h, heads, r * list.bq, std::min(p.nq, end * list.bq), id, out);
      }
    }
  }
  const int64_t pieces = (kPieces + int64_t(out.tiles.size()) - 1) / int64_t(out.tiles.size());
  int64_t most = 1;
  for (RowTile& t : out.tiles) {
    if (w.branch->value_skip > 0) break;  // "so far" means from the first key on
    t.splits = std::clamp<int64_t>(t.key_tiles / kMinTiles, 1, pieces);
    if (t.splits > 1) {
      t.first_slot = out.slots;
      out.slots += t.splits * t.rows();
    }
    most = std::max(most, t.splits);
  }
  // The same piece of all heads, then the next piece: where a cache keeps the heads of a token side
  // by side, its pages are met again while the TLB still knows them.
  for (int64_t s = 0; s < most; ++s) {
    for (size_t n = 0; n < out.tiles.size(); ++n) {
      const RowTile& t = out.tiles[n];
      if (s >= t.splits) continue;
      out.items.push_back(
          {int64_t(n), s, t.key_tiles * s / t.splits, t.key_tiles * (s + 1) / t.splits});
    }
  }
  const auto cost = [&](const Item& i) { return (i.end - i.begin) * out.tiles[i.tile].rows(); };
  std::stable_sort(out.items.begin(), out.items.end(),
                   [&](const Item& a, const Item& b) { return cost(a) > cost(b); });
  return out;
}

}  // namespace regard::cpu
