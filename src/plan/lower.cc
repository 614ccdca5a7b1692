// lower: marks the tiles in which some pair is forbidden, drops those in which all are.
#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "plan/on_device.h"
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
        keys_(source_keys(p, br)),
        ranges_(row_ranges(p, br)) {
    if (in_.list_of.empty()) return;
    // Tile rows by the list they read: those of list id are rows_[first_[id], first_[id + 1]).
    first_.assign(size_t(in_.lists() + 1), 0);
    for (const uint32_t id : in_.list_of) ++first_[id + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    std::vector<int64_t> next = first_;
    rows_.resize(in_.list_of.size());
    for (size_t row = 0; row < rows_.size(); ++row) rows_[next[in_.list_of[row]]++] = int64_t(row);
  }

  // The list itself where nothing is dropped or marked.
  std::shared_ptr<const IndexList> run(const std::shared_ptr<const IndexList>& given,
                                       int threads) const {
    constexpr int64_t kLists = 32;  // a work item
    std::vector<Part> parts(size_t((in_.lists() + kLists - 1) / kLists));
    parallel_for(int64_t(parts.size()), threads, [&](int64_t item, int) {
      lower(item * kLists, std::min((item + 1) * kLists, in_.lists()), &parts[item]);
    });
    if (std::none_of(parts.begin(), parts.end(), [](const Part& p) { return p.changed; }))
      return given;
    auto out = std::make_shared<IndexList>();
    out->batch = in_.batch, out->heads = in_.heads, out->rows = in_.rows, out->cols = in_.cols;
    out->bq = in_.bq, out->bk = in_.bk, out->list_of = in_.list_of;
    size_t total = 0;
    for (const Part& p : parts) total += p.size();
    out->index.reserve(total);
    out->start.reserve(in_.start.size());
    out->start.push_back(0);
    for (Part& p : parts) {
      for (const int64_t length : p.lengths) out->start.push_back(out->start.back() + length);
      if (p.changed)
        out->index.insert(out->index.end(), p.index.begin(), p.index.end());
      else
        out->index.insert(out->index.end(), in_.index.begin() + p.first,
                          in_.index.begin() + p.last);
      std::vector<uint32_t>().swap(p.index);
    }
    return out;
  }

 private:
  // Lowered lists that follow each other. Unchanged: what the input holds in [first, last).
  struct Part {
    int64_t first = 0, last = 0;
    bool changed = false;
    std::vector<uint32_t> index;
    std::vector<int64_t> lengths;
    size_t size() const { return changed ? index.size() : size_t(last - first); }
  };

  static uint32_t col_of(uint32_t entry) { return entry & ~IndexList::kBoundary; }
  int64_t begin_of(uint32_t entry) const { return int64_t(col_of(entry)) * in_.bk; }
  int64_t end_of(uint32_t entry) const { return std::min(begin_of(entry) + in_.bk, keys_); }

  void lower(int64_t first, int64_t last, Part* out) const {
    out->first = in_.start[first], out->last = in_.start[last];
    uint32_t flags = 0;
    for (int64_t e = out->first; e < out->last; ++e) flags |= in_.index[e];
    out->changed = flags & IndexList::kBoundary;
    std::vector<Readers> readers;
    for (int64_t id = first; id < last; ++id) {
      readers.clear();
      if (in_.list_of.empty()) add_row(id, &readers);
      for (int64_t n = first_.empty() ? 0 : first_[id]; !first_.empty() && n < first_[id + 1]; ++n)
        add_row(rows_[n], &readers);
      const int64_t done = out->changed ? int64_t(out->index.size()) : 0;
      if (!out->changed && all_full(id, readers)) {
        out->lengths.push_back(in_.start[id + 1] - in_.start[id]);
        continue;
      }
      if (!out->changed)
        out->index.assign(in_.index.begin() + out->first, in_.index.begin() + in_.start[id]);
      const int64_t before = out->changed ? done : int64_t(out->index.size());
      out->changed = true;
      add_list(id, readers, &out->index);
      out->lengths.push_back(int64_t(out->index.size()) - before);
    }
  }

  // Readers alike in all but their ranges, over keys that stand in order.
  bool by_ranges(const std::vector<Readers>& readers) const {
    return readers.size() == 1 && !br_.rule.mask && !br_.order.keys;
  }

  bool all_full(int64_t id, const std::vector<Readers>& readers) const {
    const int64_t first = in_.start[id], last = in_.start[id + 1];
    return first == last ||
           (by_ranges(readers) && readers[0].lo_max <= begin_of(in_.index[first]) &&
            end_of(in_.index[last - 1]) <= readers[0].hi_min);
  }

  void add_list(int64_t id, const std::vector<Readers>& readers, std::vector<uint32_t>* out) const {
    auto at = in_.index.begin() + in_.start[id];
    const auto last = in_.index.begin() + in_.start[id + 1];
    // Past the last first key the ends decide alone: tiles are full, then some, then empty.
    const bool ordered = by_ranges(readers);
    for (; at != last && !(ordered && readers[0].lo_max <= begin_of(*at)); ++at) {
      const Fill f = fill(readers, begin_of(*at), end_of(*at));
      if (f != Fill::empty) out->push_back(mark(*at, f));
    }
    if (at == last) return;
    const Readers& r = readers[0];
    const auto some =
        std::partition_point(at, last, [&](uint32_t e) { return end_of(e) <= r.hi_min; });
    const auto none =
        std::partition_point(some, last, [&](uint32_t e) { return begin_of(e) < r.hi_max; });
    for (; at != some; ++at) out->push_back(col_of(*at));
    for (; at != none; ++at) out->push_back(mark(*at, Fill::some));
  }

  static uint32_t mark(uint32_t entry, Fill f) {
    return f == Fill::full ? col_of(entry) : col_of(entry) | IndexList::kBoundary;
  }

  // Tile row `row`, counted over batch, heads and rows of the list, reads the list at hand.
  void add_row(int64_t row, std::vector<Readers>* all) const {
    const int64_t r = row % in_.rows, lh = row / in_.rows % in_.heads;
    const int64_t lb = row / in_.rows / in_.heads;
    const int64_t n0 = r * in_.bq, n1 = std::min<int64_t>(n0 + in_.bq, p_.nq);
    const Order& o = br_.order;
    const int64_t per = p_.heads / in_.heads;
    const int64_t b0 = in_.batch == 1 ? 0 : lb, b1 = in_.batch == 1 && apart_ ? p_.batch : b0 + 1;
    const int64_t h0 = lh * per, h1 = apart_ ? h0 + per : h0 + 1;
    for (int64_t b = b0; b < b1; ++b)
      for (int64_t h = h0; h < h1; ++h) {
        Readers& readers = readers_of(apart_ ? b : 0, apart_ ? h : 0, all);
        const uint32_t* token = o.queries ? o.queries->row(b, h, p_.heads) : nullptr;
        for (int64_t n = n0; n < n1; ++n) readers.add(ranges_, token ? token[n] : n);
      }
  }

  static Readers& readers_of(int64_t b, int64_t h, std::vector<Readers>* all) {
    for (Readers& r : *all)
      if (r.b == b && r.h == h) return r;
    all->push_back({});
    all->back().b = b, all->back().h = h;
    return all->back();
  }

  Fill fill(const std::vector<Readers>& readers, int64_t j0, int64_t j1) const {
    Fill all = Fill::empty;
    for (size_t n = 0; n < readers.size(); ++n) {
      const Readers& r = readers[n];
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
  const int64_t keys_;
  const RowRanges ranges_;
  std::vector<int64_t> first_, rows_;  // shared lists
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

Plan& Plan::lower(int threads) {
  if (lowered) return *this;
  for (Branch& b : branches) {
    if (b.order && b.cover.kind == CoverKind::band) b.cover = band_columns(problem, b.cover.band);
    if (!b.cover.list) continue;
    if (const DeviceList* on = b.cover.list.device())
      if (std::shared_ptr<const DeviceList> list = on->lowered(problem, b)) {
        b.cover.list = ListRef(std::move(list));
        continue;
      }
    b.cover.list = Lowering(problem, b).run(b.cover.list.host(), threads);
  }
  lowered = true;
  return *this;
}

}  // namespace regard
