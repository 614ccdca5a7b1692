// lower: marks the tiles in which some pair is forbidden, drops those in which all are.
#include <algorithm>
#include <numeric>

#include "plan/pairs.h"
#include "regard/plan.h"

namespace regard {
namespace {

enum class Fill { empty, some, full };

Fill both(Fill a, Fill b) { return a == b ? a : Fill::some; }

// Queries that read one list and see its tiles alike: tokens, and the extremes of what their ranges
// allow.
struct Readers {
  int64_t b = 0, h = 0;
  std::vector<int64_t> queries;
  int64_t lo_min = INT64_MAX, lo_max = 0, hi_min = INT64_MAX, hi_max = 0;
  int64_t sink_min = INT64_MAX, sink_max = 0;

  void add(const RowRanges& r, int64_t i) {
    queries.push_back(i);
    lo_min = std::min<int64_t>(lo_min, r.lo[i]), lo_max = std::max<int64_t>(lo_max, r.lo[i]);
    hi_min = std::min<int64_t>(hi_min, r.hi[i]), hi_max = std::max<int64_t>(hi_max, r.hi[i]);
    sink_min = std::min<int64_t>(sink_min, r.sink[i]);
    sink_max = std::max<int64_t>(sink_max, r.sink[i]);
  }
};

// The keys of a tile: tokens [first, last), or token[0, count) where the axis is permuted.
struct Keys {
  int64_t first, last;
  const uint32_t* token = nullptr;
  int64_t count = 0;

  Keys(const uint32_t* order, int64_t j0, int64_t j1) : first(j0), last(j1) {
    if (!order) return;
    token = order + j0;
    count = j1 - j0;
    const auto [low, high] = std::minmax_element(token, token + count);
    first = *low, last = int64_t(*high) + 1;
  }
};

class Lowering {
 public:
  Lowering(const Problem& p, const Branch& br)
      : p_(p),
        br_(br),
        in_(*br.cover.list),
        apart_(br.rule.mask || br.order),
        ranges_(row_ranges(p, br)) {
    if (in_.list_of.empty()) return;
    rows_.resize(in_.list_of.size());
    std::iota(rows_.begin(), rows_.end(), 0);
    std::stable_sort(rows_.begin(), rows_.end(),
                     [&](int64_t a, int64_t b) { return in_.list_of[a] < in_.list_of[b]; });
  }

  std::shared_ptr<const IndexList> run() {
    auto out = std::make_shared<IndexList>();
    out->batch = in_.batch, out->heads = in_.heads, out->rows = in_.rows, out->cols = in_.cols;
    out->bq = in_.bq, out->bk = in_.bk, out->start = in_.start, out->list_of = in_.list_of;
    out->index.reserve(in_.index.size());
    const int64_t keys = source_keys(p_, br_);
    size_t next = 0;  // of rows_
    for (int64_t id = 0; id < in_.lists(); ++id) {
      // Where nothing sets heads apart, a tile row has the same readers in all of them.
      const bool known = in_.list_of.empty() && !apart_ && id >= in_.rows;
      if (known) readers_.swap(of_row_[id % in_.rows]);
      if (!known) readers_.clear();
      if (!known && in_.list_of.empty()) add_row(id);
      for (; next < rows_.size() && in_.list_of[rows_[next]] == id; ++next) add_row(rows_[next]);
      const Readers* const alike = !apart_ && readers_.size() == 1 ? readers_.data() : nullptr;
      for (int64_t e = in_.start[id]; e < in_.start[id + 1]; ++e) {
        const uint32_t col = in_.index[e] & ~IndexList::kBoundary;
        const int64_t j0 = int64_t(col) * in_.bk, j1 = std::min<int64_t>(j0 + in_.bk, keys);
        const bool whole = alike && alike->lo_max <= j0 && j1 <= alike->hi_min;  // as most are
        const Fill f = whole ? Fill::full : fill(j0, j1);
        if (f == Fill::empty) continue;
        out->index.push_back(f == Fill::full ? col : col | IndexList::kBoundary);
      }
      out->start[id + 1] = int64_t(out->index.size());
      if (in_.list_of.empty() && !apart_) {
        of_row_.resize(size_t(in_.rows));
        readers_.swap(of_row_[id % in_.rows]);
      }
    }
    return out;
  }

 private:
  // Tile row `row`, counted over batch, heads and rows of the list, reads the list at hand.
  void add_row(int64_t row) {
    const int64_t r = row % in_.rows, lh = row / in_.rows % in_.heads;
    const int64_t lb = row / in_.rows / in_.heads;
    const int64_t n0 = r * in_.bq, n1 = std::min<int64_t>(n0 + in_.bq, p_.nq);
    const Order& o = br_.order;
    const int64_t per = p_.heads / in_.heads;
    const int64_t b0 = in_.batch == 1 ? 0 : lb, b1 = in_.batch == 1 && apart_ ? p_.batch : b0 + 1;
    const int64_t h0 = lh * per, h1 = apart_ ? h0 + per : h0 + 1;
    for (int64_t b = b0; b < b1; ++b)
      for (int64_t h = h0; h < h1; ++h) {
        Readers& readers = readers_of(apart_ ? b : 0, apart_ ? h : 0);
        const uint32_t* token = o.queries ? o.queries->row(b, h, p_.heads) : nullptr;
        for (int64_t n = n0; n < n1; ++n) readers.add(ranges_, token ? token[n] : n);
      }
  }

  Readers& readers_of(int64_t b, int64_t h) {
    for (Readers& r : readers_)
      if (r.b == b && r.h == h) return r;
    readers_.push_back({});
    readers_.back().b = b, readers_.back().h = h;
    return readers_.back();
  }

  Fill fill(int64_t j0, int64_t j1) const {
    Fill all = Fill::empty;
    for (size_t n = 0; n < readers_.size(); ++n) {
      const Readers& r = readers_[n];
      const uint32_t* order = br_.order.keys ? br_.order.keys->row(r.b, r.h, p_.heads) : nullptr;
      const Keys keys(order, j0, j1);
      Fill f = range_fill(r, keys);
      if (f != Fill::empty && br_.rule.mask) {
        const Fill m = mask_fill(r, keys);
        f = m == Fill::empty ? m : m == Fill::some ? Fill::some : f;
      }
      all = n == 0 ? f : both(all, f);
      if (all == Fill::some) return all;
    }
    return all;
  }

  Fill range_fill(const Readers& r, const Keys& k) const {
    if ((r.lo_max <= k.first && k.last <= r.hi_min) || k.last <= r.sink_min) return Fill::full;
    if (!(r.lo_min < k.last && k.first < r.hi_max) && k.first >= r.sink_max) return Fill::empty;
    for (const int64_t i : r.queries) {
      const int64_t lo = ranges_.lo[i], hi = ranges_.hi[i], sink = ranges_.sink[i];
      const auto inside = [&](int64_t j) { return (lo <= j && j < hi) || j < sink; };
      if (inside(k.first) || inside(k.last - 1)) return Fill::some;
      if (!k.token && std::max(lo, k.first) < std::min(hi, k.last)) return Fill::some;
      if (std::any_of(k.token, k.token + k.count, inside)) return Fill::some;
    }
    return Fill::empty;
  }

  Fill mask_fill(const Readers& r, const Keys& k) const {
    bool any = false, all = true;
    for (const int64_t i : r.queries) {
      const uint64_t* row = br_.rule.mask->row(r.b, r.h, i);
      for (int64_t n = 0; n < k.count; ++n) {
        const bool bit = row[k.token[n] >> 6] >> (k.token[n] & 63) & 1;
        any |= bit, all &= bit;
      }
      if (k.token) continue;
      const int64_t first = k.first >> 6, last = (k.last - 1) >> 6;
      for (int64_t w = first; w <= last; ++w) {
        uint64_t inside = ~0ull;
        if (w == first) inside &= ~0ull << (k.first & 63);
        if (w == last) inside &= ~0ull >> (63 - ((k.last - 1) & 63));
        any |= (row[w] & inside) != 0;
        all &= (row[w] & inside) == inside;
      }
    }
    return all ? Fill::full : any ? Fill::some : Fill::empty;
  }

  const Problem& p_;
  const Branch& br_;
  const IndexList& in_;
  const bool apart_;  // batch items and heads that read the same list may see it differently
  const RowRanges ranges_;
  std::vector<int64_t> rows_;  // shared lists: tile rows by the list they read
  std::vector<Readers> readers_;
  std::vector<std::vector<Readers>> of_row_;
};

// A band between places, written out: one list a query place.
Cover band_columns(const Problem& p, const Window& band) {
  auto list = std::make_shared<IndexList>();
  list->rows = p.nq;
  list->cols = p.nk;
  list->bq = list->bk = 1;
  list->start.push_back(0);
  for (int64_t n = 0; n < p.nq; ++n) {
    const BandRuns runs = band_runs(p, band, n);
    for (int side = 0; side < 2; ++side)
      for (int64_t j = runs.first[side]; j < runs.last[side]; ++j)
        list->index.push_back(uint32_t(j));
    list->start.push_back(int64_t(list->index.size()));
  }
  return {CoverKind::columns, {}, std::move(list)};
}

}  // namespace

Plan& Plan::lower() {
  if (lowered) return *this;
  for (Branch& b : branches) {
    if (b.order && b.cover.kind == CoverKind::band) b.cover = band_columns(problem, b.cover.band);
    if (b.cover.list) b.cover.list = Lowering(problem, b).run();
  }
  lowered = true;
  return *this;
}

}  // namespace regard
