#include <algorithm>
#include <bit>

#include "plan/pairs.h"
#include "regard/plan.h"

namespace regard {
namespace {

constexpr int64_t kTile = 64;  // what kernels round to where the plan says no tile size

int64_t overlap(int64_t a0, int64_t a1, int64_t b0, int64_t b1) {
  return std::max<int64_t>(0, std::min(a1, b1) - std::max(a0, b0));
}

// Pairs of query i with keys [j0, j1) that the ranges allow.
int64_t range_pairs(const RowRanges& r, int64_t i, int64_t j0, int64_t j1) {
  return overlap(r.lo[i], r.hi[i], j0, j1) + overlap(0, r.sink[i], j0, j1);
}

struct Count {
  double pairs = 0, tile_pairs = 0, tiles = 0;
  Count& operator+=(const Count& o) {
    pairs += o.pairs, tile_pairs += o.tile_pairs, tiles += o.tiles;
    return *this;
  }
};

// Cover all or band: ranges only.
Count count_ranges(const Problem& p, const RowRanges& r, int64_t keys) {
  Count c;
  for (int64_t i0 = 0; i0 < p.nq; i0 += kTile) {
    const int64_t i1 = std::min(i0 + kTile, p.nq);
    int64_t lo = keys, hi = 0, sink = 0;
    for (int64_t i = i0; i < i1; ++i) {
      c.pairs += double(range_pairs(r, i, 0, keys));
      if (r.lo[i] < r.hi[i]) lo = std::min<int64_t>(lo, r.lo[i]);
      hi = std::max<int64_t>(hi, r.hi[i]);
      sink = std::max<int64_t>(sink, r.sink[i]);
    }
    const int64_t first = lo / kTile, last = (hi + kTile - 1) / kTile;
    const int64_t tiles = std::max<int64_t>(0, last - first) +
                          std::min((sink + kTile - 1) / kTile, std::max<int64_t>(first, 0));
    c.tiles += double(tiles);
    c.tile_pairs += double(tiles * kTile * (i1 - i0));
  }
  return c;
}

// One row of a list, mask aside.
Count count_list_row(const Problem& p, const IndexList& l, const RowRanges& r, int64_t keys,
                     int64_t id, int64_t row) {
  Count c;
  const int64_t i0 = row * l.bq, i1 = std::min<int64_t>(i0 + l.bq, p.nq);
  for (int64_t e = l.start[id]; e < l.start[id + 1]; ++e) {
    const int64_t j0 = int64_t(l.index[e] & ~IndexList::kBoundary) * l.bk;
    const int64_t j1 = std::min<int64_t>(j0 + l.bk, keys);
    c.tiles += 1;
    c.tile_pairs += double((i1 - i0) * (j1 - j0));
    if (!(l.index[e] & IndexList::kBoundary)) {
      c.pairs += double((i1 - i0) * (j1 - j0));
      continue;
    }
    for (int64_t i = i0; i < i1; ++i) c.pairs += double(range_pairs(r, i, j0, j1));
  }
  return c;
}

// Where a mask has its say, bits are counted.
double masked_pairs(const Problem& p, const Branch& br, int64_t b, int64_t h, bool cover) {
  PairRows rows(p, br, cover);
  double n = 0;
  for (int64_t i = 0; i < p.nq; ++i) {
    const uint64_t* row = rows.row(b, h, i);
    for (int64_t w = 0; w < rows.words(); ++w) n += std::popcount(row[w]);
  }
  return n;
}

// Counts of every list row, so that heads which share rows share the work.
std::vector<Count> count_list(const Problem& p, const Branch& br, const RowRanges& r) {
  const IndexList& l = *br.cover.list;
  std::vector<Count> counts;
  for (int64_t id = 0; id + 1 < int64_t(l.start.size()); ++id)
    counts.push_back(count_list_row(p, l, r, source_keys(p, br), id, id % l.rows));
  return counts;
}

}  // namespace

Cost cost(const Plan& given) {
  Plan plan = given;
  plan.lower();  // boundary marks make counting exact and cheap
  const Problem& p = plan.problem;
  Cost out;
  out.head_pairs.resize(size_t(p.heads));
  for (const Branch& br : plan.branches) {
    const int64_t keys = source_keys(p, br);
    const RowRanges r = row_ranges(p, br);
    const Count shared = br.cover.list ? Count{} : count_ranges(p, r, keys);
    const std::vector<Count> rows = br.cover.list ? count_list(p, br, r) : std::vector<Count>{};
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h) {
        Count c = shared;
        if (br.cover.list)
          for (int64_t row = 0; row < br.cover.list->rows; ++row)
            c += rows[size_t(br.cover.list->row_id(b, h, row, p.heads))];
        if (br.rule.mask) c.pairs = masked_pairs(p, br, b, h, true);
        out.pairs += c.pairs;
        out.head_pairs[size_t(h)] += c.pairs;
        out.tiles += c.tiles;
        out.tile_pairs += c.tile_pairs;
      }
    const double list_bytes = br.cover.list ? 4.0 * double(br.cover.list->index.size()) : 0;
    const double key_side = br.cover.list ? br.cover.list->bk : kTile;
    out.bytes += out.tiles * key_side * double(p.dk + p.dv) * 4 + list_bytes;
  }
  Branch exact = plan.branches.at(0);
  exact.cover = Cover{};
  exact.source = Source{};
  if (exact.rule.mask && exact.rule.mask->nk == p.nk) {
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h) out.causal_pairs += masked_pairs(p, exact, b, h, false);
  } else {
    exact.rule.mask = nullptr;
    out.causal_pairs =
        count_ranges(p, row_ranges(p, exact), p.nk).pairs * double(p.batch * p.heads);
  }
  out.flops = 2.0 * double(p.dk + p.dv) * out.tile_pairs;
  out.bytes += 4.0 * double(p.batch * p.heads * p.nq) * double(p.dk + p.dv);
  return out;
}

}  // namespace regard
