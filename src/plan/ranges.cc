// What causality, windows, bands and packed sequences allow, as one range of keys a query.
#include <algorithm>

#include "regard/plan.h"

namespace regard {
namespace {

// Where query i sits and which keys its sequence owns.
struct Seat {
  int64_t position, begin, end;
};

class Seats {
 public:
  explicit Seats(const Problem& p) : p_(p) {}
  Seat of(int64_t i) {
    if (p_.cu_q.empty()) return {i + p_.offset, 0, p_.nk};
    while (i >= p_.cu_q[s_ + 1]) ++s_;  // queries come in order; empty sequences are stepped over
    const int64_t begin = p_.cu_k[s_], end = p_.cu_k[s_ + 1];
    return {end - (p_.cu_q[s_ + 1] - i), begin, end};
  }

 private:
  const Problem& p_;
  size_t s_ = 0;
};

}  // namespace

// Given keys whose tokens all lie below n.
static int64_t complete(const Source& s, int64_t n) {
  return n < s.block ? 0 : (n - s.block) / s.stride + 1;
}

int64_t source_keys(const Problem& p, const Branch& b) {
  const Source& s = b.source;
  if (s.kind == SourceKind::given) return std::max<int64_t>(1, complete(s, p.nk));
  return s.kind == SourceKind::raw ? p.nk : (p.nk + s.block - 1) / s.block;
}

RowRanges row_ranges(const Problem& p, const Branch& b) {
  // A band under an order is about places: lower() makes it columns.
  const bool band = b.cover.kind == CoverKind::band && !b.order;
  const Window w = band ? b.cover.band : b.rule.window;
  RowRanges out;
  out.lo.resize(p.nq);
  out.hi.resize(p.nq);
  out.sink.resize(p.nq);
  Seats seats(p);
  for (int64_t i = 0; i < p.nq; ++i) {
    const Seat seat = seats.of(i);
    int64_t lo = seat.begin, hi = seat.end, sink = 0;
    if (b.rule.causal) hi = std::min(hi, seat.position + 1);
    if (w.right >= 0) hi = std::min(hi, seat.position + w.right + 1);
    if (w.left >= 0) {
      lo = std::max(lo, seat.position - w.left);
      sink = std::min({w.sink, hi, lo});
    }
    if (b.source.kind == SourceKind::pooled) {
      // A pooled key sits at its block's last token; the tail block's last token is nk - 1.
      const int64_t block = b.source.block;
      const auto complete = [&](int64_t n) { return n >= p.nk ? source_keys(p, b) : n / block; };
      hi = complete(hi);
      lo = lo >= p.nk ? source_keys(p, b) : lo / block;
      sink = std::min(complete(sink), lo);
    }
    if (b.source.kind == SourceKind::given) {
      hi = complete(b.source, hi), lo = complete(b.source, lo);
      sink = std::min(complete(b.source, sink), lo);
    }
    hi = std::max<int64_t>(hi, 0);
    out.lo[i] = int32_t(std::min(lo, hi));
    out.hi[i] = int32_t(hi);
    out.sink[i] = int32_t(std::max<int64_t>(sink, 0));
  }
  return out;
}

}  // namespace regard
