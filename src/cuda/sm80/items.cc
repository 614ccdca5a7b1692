#include "cuda/sm80/items.h"

#include <algorithm>

namespace regard::cuda::sm80 {
namespace {

bool listed(const Branch& b) { return bool(b.cover.list); }

int64_t heads_together(const Problem& p, const Branch& b) {
  const Permutation* keys = b.order.keys.get();
  const bool own_lists = listed(b) && p.heads != p.kv_heads &&
                         (b.cover.list->heads == p.heads || (keys && keys->heads == p.heads));
  return own_lists ? 1 : p.group();
}

// Calls f(first row, past the last, list) for runs of tile rows that read one list, or nothing.
template <class F>
void each_run(const IndexList& l, int64_t b, int64_t h, int64_t heads, const F& f) {
  const auto empty = [&](int64_t id) {
    return !l.start.empty() && l.start[size_t(id)] == l.start[size_t(id) + 1];
  };
  for (int64_t r = 0, end = 0; r < l.rows; r = end) {
    const int64_t id = l.row_id(b, h, r, heads);
    const auto same = [&](int64_t next) { return next == id || (empty(id) && empty(next)); };
    do {
      ++end;
    } while (end < l.rows && same(l.row_id(b, h, end, heads)));
    f(r, end, id);
  }
}

struct RowTile {
  Item item = {};
  int64_t tiles = 0;
  int64_t rows() const { return int64_t(item.heads) * item.queries; }
};

class Cutter {
 public:
  Cutter(const Problem& p, const Branch& b, const RowRanges& ranges, int64_t keys, int tile_rows,
         int tile_keys, int64_t align)
      : p_(p),
        b_(b),
        r_(ranges),
        keys_(keys),
        align_(align),
        tile_rows_(tile_rows),
        tile_keys_(tile_keys) {}

  std::vector<RowTile> run() {
    const int64_t heads = heads_together(p_, b_);
    for (int64_t b = 0; b < p_.batch; ++b)
      for (int64_t h = 0; h < p_.heads; h += heads) {
        if (!listed(b_)) {
          add(b, h, heads, 0, p_.nq, -1);
          continue;
        }
        const IndexList& l = *b_.cover.list;
        each_run(l, b, h, p_.heads, [&](int64_t r, int64_t end, int64_t id) {
          add(b, h, heads, r * l.bq, std::min<int64_t>(p_.nq, end * l.bq), id);
        });
      }
    return std::move(out_);
  }

 private:
  void add(int64_t b, int64_t h0, int64_t heads, int64_t i0, int64_t i1, int64_t list_row) {
    const int64_t head_step = std::min<int64_t>(heads, tile_rows_);
    const int64_t step = tile_rows_ / head_step;
    for (int64_t h = h0; h < h0 + heads; h += head_step)
      for (int64_t i = i0, end = i0; i < i1; i = end) {
        end = std::min(i + step, i1);
        if (align_ > 0) end = std::min(end, i0 + ((i - i0) / align_ + 1) * align_);
        RowTile t;
        t.item.b = int32_t(b), t.item.h0 = int32_t(h);
        t.item.heads = int32_t(std::min(head_step, h0 + heads - h));
        t.item.i0 = int32_t(i), t.item.queries = int32_t(end - i);
        list_row < 0 ? find_ranges(&t) : find_list(list_row, &t);
        out_.push_back(t);
      }
  }

  // As the CPU's KeyStream: the union of the rows' ranges, and the prefix before it.
  void find_ranges(RowTile* t) const {
    int64_t lo = keys_, hi = 0, sink = 0;
    for (int64_t i = t->item.i0; i < t->item.i0 + t->item.queries; ++i) {
      sink = std::max<int64_t>(sink, r_.sink[size_t(i)]);
      if (r_.lo[size_t(i)] >= r_.hi[size_t(i)]) continue;
      lo = std::min<int64_t>(lo, r_.lo[size_t(i)]);
      hi = std::max<int64_t>(hi, r_.hi[size_t(i)]);
    }
    if (lo >= hi) lo = hi = sink;
    const auto tiles = [&](int64_t n) { return (n + tile_keys_ - 1) / tile_keys_; };
    if (sink > 0 && tiles(sink) * tile_keys_ > lo / tile_keys_ * tile_keys_) lo = 0;
    hi = std::max(hi, sink);
    if (lo == 0) sink = 0;
    t->item.lo = int32_t(lo), t->item.hi = int32_t(hi), t->item.sink = int32_t(sink);
    t->item.sink_tiles = int32_t(tiles(sink));
    t->tiles = t->item.sink_tiles + (hi > lo ? tiles(hi) - lo / tile_keys_ : 0);
  }

  void find_list(int64_t row, RowTile* t) const {
    const IndexList& l = *b_.cover.list;
    t->item.entries = l.start[size_t(row)];
    const int64_t n = l.start[size_t(row) + 1] - t->item.entries;
    if (n == 0) return;
    const int64_t last = int64_t(l.index[size_t(t->item.entries + n - 1)] & ~IndexList::kBoundary);
    const int64_t keys = (n - 1) * l.bk + std::min<int64_t>(l.bk, keys_ - last * l.bk);
    t->item.keys = int32_t(keys);
    t->tiles = (keys + tile_keys_ - 1) / tile_keys_;
  }

  const Problem& p_;
  const Branch& b_;
  const RowRanges& r_;
  int64_t keys_, align_;
  int tile_rows_, tile_keys_;
  std::vector<RowTile> out_;
};

int64_t pieces(const RowTile& t, int64_t piece) {
  constexpr int64_t kMost = 256;
  return std::clamp<int64_t>((t.tiles + piece - 1) / piece, 1, kMost);
}

// Fewer row tiles than blocks that run at once: cut them over keys, into pieces of equal work that
// run at once too (a second wave of a few blocks would double the time), of at least 128 keys.
int64_t tiles_a_piece(const std::vector<RowTile>& tiles, int tile_keys, int64_t capacity) {
  if (int64_t(tiles.size()) >= capacity) return INT32_MAX;
  int64_t total = 0;
  for (const RowTile& t : tiles) total += t.tiles;
  int64_t piece = std::max<int64_t>({1, 128 / tile_keys, total / capacity});
  const auto count = [&] {
    int64_t n = 0;
    for (const RowTile& t : tiles) n += pieces(t, piece);
    return n;
  };
  while (count() > capacity) piece += std::max<int64_t>(1, piece / 64);
  return piece;
}

}  // namespace

int64_t rows_together(const Problem& p, const Branch& b) {
  const int64_t heads = heads_together(p, b);
  if (!listed(b)) return heads * p.nq;
  const IndexList& shape = b.cover.list.shape();
  if (shape.list_of.empty()) return heads * std::min<int64_t>(shape.bq, p.nq);
  int64_t runs = 0;
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t h = 0; h < p.heads; h += heads)
      each_run(shape, n, h, p.heads, [&](int64_t, int64_t, int64_t) { ++runs; });
  return heads * (p.batch * (p.heads / heads) * p.nq / runs);
}

Items make_items(const Problem& p, const Branch& b, const RowRanges& ranges, int64_t keys,
                 int tile_rows, int tile_keys, int64_t capacity, bool partials, int64_t align) {
  std::vector<RowTile> tiles = Cutter(p, b, ranges, keys, tile_rows, tile_keys, align).run();
  // Values are skipped by the greatest logit so far: from the first key on.
  const int64_t piece = b.value_skip > 0 ? INT32_MAX : tiles_a_piece(tiles, tile_keys, capacity);
  Items out;
  if (partials) out.rows.resize(size_t(p.batch * p.heads * p.nq));
  for (const RowTile& t : tiles) {
    const int64_t n = pieces(t, piece), first = out.slots;
    const bool slots = partials || n > 1;
    for (int64_t s = 0; s < n; ++s) {
      Item item = t.item;
      item.begin = int32_t(t.tiles * s / n), item.end = int32_t(t.tiles * (s + 1) / n);
      item.slot = slots ? out.slots : -1;
      item.first_slot = first, item.pieces = int32_t(n), item.tile = int32_t(out.split);
      if (slots) out.slots += t.rows();
      out.items.push_back(item);
    }
    out.split += n > 1;
    out.most = std::max(out.most, int(n));
    for (int64_t r = 0; partials && r < t.rows(); ++r) {
      const int64_t h = t.item.h0 + r % t.item.heads, place = t.item.i0 + r / t.item.heads;
      const Permutation* o = listed(b) ? b.order.queries.get() : nullptr;
      const int64_t i = o ? o->row(t.item.b, h, p.heads)[place] : place;
      out.rows[size_t((t.item.b * p.heads + h) * p.nq + i)] = {first + r, int32_t(n),
                                                               int32_t(t.rows())};
    }
  }
  std::stable_sort(out.items.begin(), out.items.end(),
                   [](const Item& a, const Item& c) { return a.end - a.begin > c.end - c.begin; });
  return out;
}

}  // namespace regard::cuda::sm80
