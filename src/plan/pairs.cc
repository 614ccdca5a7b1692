#include "plan/pairs.h"

#include <algorithm>
#include <bit>

#include "regard/status.h"

namespace regard {

void set_bits(uint64_t* bits, int64_t first, int64_t last) {
  if (first >= last) return;
  const int64_t a = first >> 6, z = (last - 1) >> 6;
  const uint64_t head = ~0ull << (first & 63);
  const uint64_t tail = ~0ull >> (63 - ((last - 1) & 63));
  if (a == z) {
    bits[a] |= head & tail;
    return;
  }
  bits[a] |= head;
  std::fill(bits + a + 1, bits + z, ~0ull);
  bits[z] |= tail;
}

PairRows::PairRows(const Problem& p, const Branch& branch, bool cover)
    : problem_(p), branch_(branch), cover_(cover), keys_(source_keys(p, branch)) {
  Branch ranged = branch;
  if (!cover) ranged.cover = Cover{};
  ranges_ = row_ranges(p, ranged);
  row_.resize(size_t(words()));
}

// Places [first, last) of the keys' axis, as the tokens that stand there.
void PairRows::set_keys(const uint32_t* keys, int64_t first, int64_t last) {
  if (!keys) return set_bits(cover_bits_.data(), first, last);
  for (int64_t n = first; n < last; ++n) cover_bits_[keys[n] >> 6] |= 1ull << (keys[n] & 63);
}

void PairRows::load_list(int64_t id, const uint32_t* keys) {
  if (id == loaded_ && keys == loaded_keys_) return;
  const IndexList& l = *branch_.cover.list;
  cover_bits_.assign(size_t(words()), 0);
  for (int64_t e = l.start[id]; e < l.start[id + 1]; ++e) {
    const int64_t first = int64_t(l.index[e] & ~IndexList::kBoundary) * l.bk;
    set_keys(keys, first, std::min<int64_t>(first + l.bk, keys_));
  }
  loaded_ = id;
  loaded_keys_ = keys;
}

BandRuns band_runs(const Problem& p, const Window& band, int64_t place) {
  const int64_t at = place + p.offset;
  const int64_t hi = std::clamp<int64_t>(band.right < 0 ? p.nk : at + band.right + 1, 0, p.nk);
  const int64_t lo = std::clamp<int64_t>(band.left < 0 ? 0 : at - band.left, 0, hi);
  return {{0, lo}, {std::min(band.sink, lo), hi}};
}

void PairRows::load_band(int64_t place, const uint32_t* keys) {
  cover_bits_.assign(size_t(words()), 0);
  const BandRuns runs = band_runs(problem_, branch_.cover.band, place);
  for (int n = 0; n < 2; ++n) set_keys(keys, runs.first[n], runs.last[n]);
}

int64_t PairRows::place_of(int64_t b, int64_t h, int64_t i) {
  if (!branch_.order.queries) return i;
  const uint32_t* token = branch_.order.queries->row(b, h, problem_.heads);
  if (token != placed_) {
    place_.resize(size_t(problem_.nq));
    for (int64_t n = 0; n < problem_.nq; ++n) place_[token[n]] = uint32_t(n);
    placed_ = token;
  }
  return place_[i];
}

const uint64_t* PairRows::row(int64_t b, int64_t h, int64_t i) {
  std::fill(row_.begin(), row_.end(), 0);
  set_bits(row_.data(), ranges_.lo[i], ranges_.hi[i]);
  set_bits(row_.data(), 0, ranges_.sink[i]);
  const Order& order = branch_.order;
  const bool list = bool(branch_.cover.list);
  if (cover_ && (list || (order && branch_.cover.kind == CoverKind::band))) {
    const uint32_t* keys = order.keys ? order.keys->row(b, h, problem_.heads) : nullptr;
    const int64_t place = place_of(b, h, i);
    if (list) {
      const IndexList& l = *branch_.cover.list;
      load_list(l.row_id(b, h, place / l.bq, problem_.heads), keys);
    } else {
      load_band(place, keys);
    }
    for (int64_t w = 0; w < words(); ++w) row_[w] &= cover_bits_[w];
  }
  if (branch_.rule.mask) {
    const uint64_t* m = branch_.rule.mask->row(b, h, i);
    for (int64_t w = 0; w < words(); ++w) row_[w] &= m[w];
  }
  return row_.data();
}

BitMask expand(const Plan& plan, int i) {
  const Problem& p = plan.problem;
  PairRows rows(p, plan.branches.at(size_t(i)));
  BitMask out;
  out.batch = p.batch;
  out.heads = p.heads;
  out.nq = p.nq;
  out.nk = rows.keys();
  out.words.reserve(size_t(p.batch * p.heads * p.nq * rows.words()));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t q = 0; q < p.nq; ++q) {
        const uint64_t* row = rows.row(b, h, q);
        out.words.insert(out.words.end(), row, row + rows.words());
      }
  return out;
}

namespace {

// Bits [first, last) of `row` that are set.
int64_t count_bits(const uint64_t* row, int64_t first, int64_t last) {
  int64_t n = 0;
  for (int64_t w = first >> 6; w <= (last - 1) >> 6; ++w) {
    uint64_t bits = row[w];
    if (w == first >> 6) bits &= ~0ull << (first & 63);
    if (w == (last - 1) >> 6) bits &= ~0ull >> (63 - ((last - 1) & 63));
    n += std::popcount(bits);
  }
  return n;
}

}  // namespace

std::vector<float> coverage(const Plan& plan, int64_t b, int64_t head, int64_t cell_q,
                            int64_t cell_k) {
  const Problem& p = plan.problem;
  if (b < 0 || b >= p.batch || head < 0 || head >= p.heads || cell_q < 1 || cell_k < 1)
    throw Error("coverage: batch item, head or cell size out of range for " + p.str());
  const int64_t rows = (p.nq + cell_q - 1) / cell_q, cols = (p.nk + cell_k - 1) / cell_k;
  std::vector<int64_t> read(size_t(rows * cols)), exact(size_t(rows * cols));
  const auto add = [&](PairRows& pairs, std::vector<int64_t>& sums) {
    for (int64_t i = 0; i < p.nq; ++i) {
      const uint64_t* bits = pairs.row(b, head, i);
      for (int64_t c = 0; c < cols; ++c)
        sums[i / cell_q * cols + c] +=
            count_bits(bits, c * cell_k, std::min((c + 1) * cell_k, p.nk));
    }
  };
  for (const Branch& branch : plan.branches) {
    if (branch.source.kind != SourceKind::raw) continue;
    PairRows pairs(p, branch);
    add(pairs, read);
  }
  PairRows all(p, plan.branches.at(0), false);
  if (all.keys() != p.nk) throw Error("coverage: the first branch must read raw keys");
  add(all, exact);
  std::vector<float> out(read.size());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = exact[i] ? std::min(1.0f, float(double(read[i]) / double(exact[i]))) : -1.0f;
  return out;
}

}  // namespace regard
