// Rules by token -> whole tiles and single keys. See lists.h.
#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "stages/lists.h"
#include "stages/rows.h"

namespace regard::lists {
namespace {

constexpr int64_t kTile = 64;

// Sorted, disjoint, inside [0, visible).
void normalise(int64_t visible, Ranges* ranges) {
  for (Range& r : *ranges) r = {std::max<int64_t>(r.begin, 0), std::min(r.end, visible)};
  std::sort(ranges->begin(), ranges->end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  size_t kept = 0;
  for (const Range& r : *ranges) {
    if (r.begin >= r.end) continue;
    if (kept > 0 && r.begin <= (*ranges)[kept - 1].end)
      (*ranges)[kept - 1].end = std::max((*ranges)[kept - 1].end, r.end);
    else
      (*ranges)[kept++] = r;
  }
  ranges->resize(kept);
}

// One row of tiles: what its queries read, and which tiles all of them read whole.
class TileRow {
 public:
  TileRow(const Inputs& x, int64_t r)
      : first_(r * kTile), last_(std::min(first_ + kTile, x.problem.nq)), nk_(x.problem.nk) {
    for (int64_t i = first_; i < last_; ++i) {
      const int64_t position = i + x.problem.offset;
      visible_.push_back(x.causal ? std::clamp<int64_t>(position + 1, 0, nk_) : nk_);
    }
  }

  template <class Rule>
  void read(int64_t offset, const Rule& rule) {
    const int64_t cols = (nk_ + kTile - 1) / kTile;
    std::vector<int64_t> full(size_t(cols), 0);
    rows_.resize(size_t(last_ - first_));
    for (int64_t i = first_; i < last_; ++i) {
      Ranges& row = rows_[i - first_];
      const int64_t visible = visible_[i - first_];
      rule(i + offset, &row);
      normalise(visible, &row);
      for (const Range& r : row)
        for (int64_t c = (r.begin + kTile - 1) / kTile; c < last_tile(r, visible); ++c) ++full[c];
      for (int64_t c = (visible + kTile - 1) / kTile; c < cols; ++c) ++full[c];  // nothing to read
    }
    const int64_t most = *std::max_element(visible_.begin(), visible_.end());
    for (int64_t c = 0; c * kTile < most; ++c)
      if (full[c] == last_ - first_) tiles_.push_back(c);
  }

  const std::vector<int64_t>& tiles() const { return tiles_; }
  // Keys of query n of the row that lie outside the tiles.
  void single(int64_t n, std::vector<uint32_t>* out) const {
    auto tile = tiles_.begin();
    for (const Range& r : rows_[n])
      for (int64_t j = r.begin; j < r.end;) {
        while (tile != tiles_.end() && (*tile + 1) * kTile <= j) ++tile;
        if (tile != tiles_.end() && *tile * kTile <= j)
          j = (*tile + 1) * kTile;
        else
          out->push_back(uint32_t(j++));
      }
  }
  int64_t queries() const { return last_ - first_; }

 private:
  static int64_t last_tile(const Range& r, int64_t visible) {
    return r.end == visible ? (visible + kTile - 1) / kTile : r.end / kTile;
  }

  int64_t first_, last_, nk_;
  std::vector<int64_t> visible_, tiles_;
  std::vector<Ranges> rows_;
};

}  // namespace

void every(int64_t first, int64_t width, int64_t step, int64_t end, Ranges* out) {
  for (int64_t j = first; j < end; j += step) out->push_back({j, j + width});
}

void in_every(int64_t at, int64_t side, int64_t size, int64_t end, Ranges* out) {
  for (int64_t begin = 0; begin < end; begin += size)
    out->push_back({begin + std::max<int64_t>(0, at - side),
                    std::min(end, begin + std::min(size, at + side + 1))});
}

IndexList keys_of(const Problem& p, int64_t batch, int64_t heads, int bq,
                  const std::vector<std::vector<uint32_t>>& keys) {
  IndexList list;
  list.batch = batch;
  list.heads = heads;
  list.rows = (p.nq + bq - 1) / bq;
  list.cols = p.nk;
  list.bq = bq;
  list.bk = 1;
  list.start.push_back(0);
  size_t total = 0;
  for (const auto& row : keys) total += row.size();
  list.index.reserve(total);
  for (const auto& row : keys) {
    list.index.insert(list.index.end(), row.begin(), row.end());
    list.start.push_back(int64_t(list.index.size()));
  }
  return list;
}

Plan by_row(const Ctx& ctx, const Inputs& x, int64_t batch, int64_t heads, const RowRule& rule) {
  const StageTimer timer(ctx, "lists.by_row");
  const Problem& p = x.problem;
  need_one_sequence(p, "patterns by position");
  const int64_t rows = (p.nq + kTile - 1) / kTile;
  TileBits tiles(batch, heads, rows, (p.nk + kTile - 1) / kTile);
  std::vector<std::vector<uint32_t>> single(size_t(batch * heads * p.nq));
  parallel_for(batch * heads * rows, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / rows / heads, h = item / rows % heads, r = item % rows;
    TileRow row(x, r);
    row.read(p.offset, [&](int64_t position, Ranges* out) { rule(b, h, position, out); });
    for (const int64_t c : row.tiles()) tiles.set(b, h, r, c);
    for (int64_t n = 0; n < row.queries(); ++n)
      row.single(n, &single[(b * heads + h) * p.nq + r * kTile + n]);
  });
  IndexList list = keys_of(p, batch, heads, 1, single);
  Plan whole = Plan::tiles(p, kTile, kTile, tiles);
  return list.index.empty() ? whole : Plan::same({whole, Plan::columns(p, std::move(list))});
}

Plan by_position(const Ctx& ctx, const Inputs& x, int64_t heads, const PositionRule& rule) {
  return by_row(ctx, x, 1, heads,
                [&](int64_t, int64_t h, int64_t position, Ranges* out) { rule(h, position, out); });
}

Plan by_position_singly(const Ctx& ctx, const Inputs& x, const PositionRule& rule) {
  const StageTimer timer(ctx, "lists.by_position_singly");
  const Problem& p = x.problem;
  need_one_sequence(p, "patterns by position");
  std::vector<std::vector<uint32_t>> keys(static_cast<size_t>(p.nq));
  parallel_for(p.nq, ctx.threads, [&](int64_t i, int) {
    const int64_t position = i + p.offset;
    Ranges row;
    rule(0, position, &row);
    normalise(x.causal ? std::clamp<int64_t>(position + 1, 0, p.nk) : p.nk, &row);
    size_t total = 0;
    for (const Range& r : row) total += size_t(r.end - r.begin);
    keys[i].resize(total);
    auto to = keys[i].begin();
    for (const Range& r : row) {
      std::iota(to, to + (r.end - r.begin), uint32_t(r.begin));
      to += r.end - r.begin;
    }
  });
  return Plan::columns(p, keys_of(p, 1, 1, 1, keys));
}

}  // namespace regard::lists
