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

void PairRows::load_list_row(int64_t id) {
  if (id == loaded_) return;
  const IndexList& l = *branch_.cover.list;
  list_.assign(size_t(words()), 0);
  for (int64_t e = l.start[id]; e < l.start[id + 1]; ++e) {
    const int64_t first = int64_t(l.index[e] & ~IndexList::kBoundary) * l.bk;
    set_bits(list_.data(), first, std::min<int64_t>(first + l.bk, keys_));
  }
  loaded_ = id;
}

const uint64_t* PairRows::row(int64_t b, int64_t h, int64_t i) {
  std::fill(row_.begin(), row_.end(), 0);
  set_bits(row_.data(), ranges_.lo[i], ranges_.hi[i]);
  set_bits(row_.data(), 0, ranges_.sink[i]);
  if (cover_ && branch_.cover.list) {
    const IndexList& l = *branch_.cover.list;
    load_list_row(l.row_id(b, h, i / l.bq, problem_.heads));
    for (int64_t w = 0; w < words(); ++w) row_[w] &= list_[w];
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
