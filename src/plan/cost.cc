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

// Tiles of one list against rows of queries, masks aside. Under an order a tile's keys are sorted
// once, so that a query counts its own by bisection.
class ListCount {
 public:
  ListCount(const Problem& p, const Branch& br, const RowRanges& r)
      : p_(p), br_(br), list_(*br.cover.list), ranges_(r), keys_(source_keys(p, br)) {}

  // Tile row `row` of head (b, h), or of all that share it where there is no order.
  Count row(int64_t b, int64_t h, int64_t row) {
    const uint32_t* token = br_.order.queries ? br_.order.queries->row(b, h, p_.heads) : nullptr;
    if (br_.order.keys) sort(br_.order.keys->row(b, h, p_.heads));
    const int64_t n0 = row * list_.bq, n1 = std::min<int64_t>(n0 + list_.bq, p_.nq);
    const int64_t id = list_.row_id(b, h, row, p_.heads);
    Count c;
    for (int64_t e = list_.start[id]; e < list_.start[id + 1]; ++e) {
      const int64_t j0 = int64_t(list_.index[e] & ~IndexList::kBoundary) * list_.bk;
      const int64_t j1 = std::min<int64_t>(j0 + list_.bk, keys_);
      c.tiles += 1;
      c.tile_pairs += double((n1 - n0) * (j1 - j0));
      if (!(list_.index[e] & IndexList::kBoundary)) {
        c.pairs += double((n1 - n0) * (j1 - j0));
        continue;
      }
      for (int64_t n = n0; n < n1; ++n) c.pairs += double(pairs(token ? token[n] : n, j0, j1));
    }
    return c;
  }

 private:
  void sort(const uint32_t* order) {
    if (order == order_) return;
    order_ = order;
    sorted_.assign(order, order + keys_);
    for (int64_t j = 0; j < keys_; j += list_.bk)
      std::sort(sorted_.begin() + j, sorted_.begin() + std::min<int64_t>(j + list_.bk, keys_));
  }

  int64_t pairs(int64_t i, int64_t j0, int64_t j1) const {
    if (!br_.order.keys) return range_pairs(ranges_, i, j0, j1);
    const auto below = [&](int64_t token) {
      const auto first = sorted_.begin() + j0;
      return std::lower_bound(first, sorted_.begin() + j1, token) - first;
    };
    return below(ranges_.hi[i]) - below(ranges_.lo[i]) + below(ranges_.sink[i]);
  }

  const Problem& p_;
  const Branch& br_;
  const IndexList& list_;
  const RowRanges& ranges_;
  const int64_t keys_;
  const uint32_t* order_ = nullptr;
  std::vector<uint32_t> sorted_;  // tokens, ascending inside each tile
};

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

// Counts head by head; heads that share lists and have no order share the work.
std::vector<Count> count_list(const Problem& p, const Branch& br, const RowRanges& r) {
  const IndexList& l = *br.cover.list;
  ListCount count(p, br, r);
  std::vector<Count> heads(size_t(p.batch * p.heads));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      Count& c = heads[size_t(b * p.heads + h)];
      const int64_t twin_b = l.batch == 1 ? 0 : b;
      const int64_t twin_h = h * l.heads / p.heads * p.heads / l.heads;  // first with these lists
      if (!br.order && (twin_b < b || twin_h < h)) {
        c = heads[size_t(twin_b * p.heads + twin_h)];
        continue;
      }
      for (int64_t row = 0; row < l.rows; ++row) c += count.row(b, h, row);
    }
  return heads;
}

// Linear attention: phi and its products with the state of every query and every key.
double flops(const Problem& p, const Branch& br, double tile_pairs) {
  if (br.weight.kind == WeightKind::exponential) return 2.0 * double(p.dk + p.dv) * tile_pairs;
  const View& w = br.weight.directions.view;
  const double phi = w ? double(p.dk) : 0, features = double(w ? w.size[2] : p.dk);
  return 2.0 * features * (phi + double(p.dv)) *
         double(p.batch * (p.heads * p.nq + p.kv_heads * p.nk));
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
    const std::vector<Count> heads = br.cover.list ? count_list(p, br, r) : std::vector<Count>{};
    double tile_pairs = 0;
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h) {
        Count c = br.cover.list ? heads[size_t(b * p.heads + h)] : shared;
        if (br.rule.mask) c.pairs = masked_pairs(p, br, b, h, true);
        out.pairs += c.pairs;
        out.head_pairs[size_t(h)] += c.pairs;
        out.tiles += c.tiles;
        tile_pairs += c.tile_pairs;
      }
    out.tile_pairs += tile_pairs;
    out.flops += flops(p, br, tile_pairs);
    double list_bytes = br.cover.list ? 4.0 * double(br.cover.list->index.size()) : 0;
    for (const auto& order : {br.order.queries, br.order.keys})
      if (order) list_bytes += 4.0 * double(order->token.size());
    const double key_side = br.cover.list ? br.cover.list->bk : kTile;
    out.bytes += out.tiles * key_side * double(p.dk + p.dv) * 4 + list_bytes;
  }
  Branch exact = plan.branches.at(0);
  exact.cover = Cover{};
  exact.order = Order{};
  exact.source = Source{};
  if (exact.rule.mask && exact.rule.mask->nk == p.nk) {
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h) out.causal_pairs += masked_pairs(p, exact, b, h, false);
  } else {
    // Where heads differ in their windows, branches have rules of their own: the widest counts.
    exact.rule.mask = nullptr;
    for (const Branch& br : plan.branches) {
      exact.rule.causal = br.rule.causal, exact.rule.window = br.rule.window;
      const double pairs = count_ranges(p, row_ranges(p, exact), p.nk).pairs;
      out.causal_pairs = std::max(out.causal_pairs, pairs * double(p.batch * p.heads));
    }
  }
  out.bytes += 4.0 * double(p.batch * p.heads * p.nq) * double(p.dk + p.dv);
  return out;
}

}  // namespace regard
