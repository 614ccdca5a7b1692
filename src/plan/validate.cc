#include "plan/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/pairs.h"
#include "regard/plan.h"
#include "regard/status.h"

namespace regard {
namespace {

class Checker {
 public:
  Checker(const Problem& p, const Branch& b, size_t number) : p_(p), b_(b), number_(number) {}

  void check() const {
    source();
    order();
    cover();
    rule();
    score();
    norm();
    weight();
    value_skip();
    const std::vector<std::string>& known = numerics();
    if (std::find(known.begin(), known.end(), b_.numeric) == known.end())
      refuse(
          fmt::format("numeric '{}' is unknown; accepted: {}", b_.numeric, fmt::join(known, ", ")));
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(fmt::format("plan: branch {} ({}): {}", number_, p_.str(), why));
  }

  void source() const {
    if (const View& m = b_.source.value_map.view; m)
      if (m.dtype != DType::f32 || m.device != Device::cpu || m.size[0] != 1 ||
          (m.size[1] != 1 && m.size[1] != p_.kv_heads) || m.size[2] != p_.dv + 1 ||
          m.size[3] != p_.dv)
        refuse(fmt::format("value map {}; accepted: f32[1,1|{},{},{}] in the CPU's memory",
                           m.shape(), p_.kv_heads, p_.dv + 1, p_.dv));
    if (b_.source.kind == SourceKind::raw) return;
    if (b_.source.block < 1)
      refuse(fmt::format("pooled block {} must be at least 1", b_.source.block));
    if (!p_.cu_q.empty()) refuse("pooled keys need one sequence, not packed ones");
    if (!b_.score.alibi.empty()) refuse("ALiBi with pooled keys is not defined");
    if (b_.source.kind == SourceKind::given) {
      if (b_.source.stride < 1)
        refuse(fmt::format("stride {} of given keys must be at least 1", b_.source.stride));
      given("keys", b_.source.keys.view, p_.dk);
      given("values", b_.source.values.view, p_.dv);
    }
  }

  void given(const char* name, const View& v, int64_t d) const {
    const int64_t n = source_keys(p_, b_);
    if (!v || v.dtype != DType::f32 || v.device != Device::cpu || v.size[0] != p_.batch ||
        v.size[1] != p_.kv_heads || v.size[2] != n || v.size[3] != d)
      refuse(fmt::format("given {} {}; accepted: f32[{},{},{},{}] in the CPU's memory", name,
                         v ? v.shape() : "none", p_.batch, p_.kv_heads, n, d));
  }

  void permutation(const char* name, const Permutation& o, int64_t n, int64_t kv_heads) const {
    const bool heads_ok = o.heads == 1 || o.heads == kv_heads || o.heads == p_.heads;
    if (o.n != n || (o.batch != 1 && o.batch != p_.batch) || !heads_ok ||
        int64_t(o.token.size()) != o.batch * o.heads * n)
      refuse(fmt::format("{} order [{},{},{}] of {} tokens; accepted: [1|{},1|{}{},{}]", name,
                         o.batch, o.heads, o.n, o.token.size(), p_.batch,
                         kv_heads == p_.heads ? "" : fmt::format("{}|", kv_heads), p_.heads, n));
    std::vector<bool> seen;
    for (size_t e = 0; e < o.token.size(); ++e) {
      if (int64_t(e) % n == 0) seen.assign(size_t(n), false);
      const int64_t token = o.token[e], place = int64_t(e) % n;
      if (token >= n)
        refuse(fmt::format("{} order: token {} at place {}; accepted: below {}", name, token, place,
                           n));
      if (seen[size_t(token)])
        refuse(fmt::format("{} order: token {} twice, again at place {}", name, token, place));
      seen[size_t(token)] = true;
    }
  }

  void order() const {
    const Order& o = b_.order;
    if (o.queries) permutation("query", *o.queries, p_.nq, p_.heads);
    if (o.keys) permutation("key", *o.keys, source_keys(p_, b_), p_.kv_heads);
    if (!o || b_.cover.kind != CoverKind::band) return;
    if (b_.source.kind != SourceKind::raw) refuse("a band under an order needs raw keys");
    if (!p_.cu_q.empty()) refuse("a band under an order needs one sequence, not packed ones");
  }

  void cover() const {
    const Cover& c = b_.cover;
    const bool wants_list = c.kind == CoverKind::tiles || c.kind == CoverKind::columns;
    if (wants_list != bool(c.list)) refuse("covers tiles and columns carry a list, others do not");
    if (wants_list) list(c.list.shape(), c.list.device());
  }

  // `made_here`: by our own kernels, of which sizes alone are looked at.
  void list(const IndexList& l, bool made_here) const {
    const int64_t keys = source_keys(p_, b_);
    if (l.bq < 1 || l.bk < 1) refuse(fmt::format("tile {}x{} must be positive", l.bq, l.bk));
    if (b_.cover.kind == CoverKind::columns && l.bk != 1)
      refuse(fmt::format("columns are single keys: bk must be 1, got {}", l.bk));
    if (l.rows != (p_.nq + l.bq - 1) / l.bq || l.cols != (keys + l.bk - 1) / l.bk)
      refuse(fmt::format("list has {} rows and {} columns, {}x{} tiles of {} x {} need {} and {}",
                         l.rows, l.cols, l.bq, l.bk, p_.nq, keys, (p_.nq + l.bq - 1) / l.bq,
                         (keys + l.bk - 1) / l.bk));
    if (l.batch != 1 && l.batch != p_.batch)
      refuse(fmt::format("list batch must be 1 or {}, got {}", p_.batch, l.batch));
    if (l.heads != 1 && l.heads != p_.kv_heads && l.heads != p_.heads)
      refuse(fmt::format("list heads must be 1, {} or {}, got {}", p_.kv_heads, p_.heads, l.heads));
    if (made_here) return;
    const int64_t rows = l.batch * l.heads * l.rows;
    if (l.start.empty() || (l.list_of.empty() && l.lists() != rows) || l.start.front() != 0 ||
        l.start.back() != int64_t(l.index.size()))
      refuse("list starts do not frame its indices");
    if (!l.list_of.empty() && int64_t(l.list_of.size()) != rows)
      refuse(fmt::format("{} rows share lists, accepted: {}", l.list_of.size(), rows));
    for (uint32_t id : l.list_of)
      if (int64_t(id) >= l.lists())
        refuse(fmt::format("a row reads list {}; accepted: below {}", id, l.lists()));
    for (size_t r = 0; r + 1 < l.start.size(); ++r) list_row(l, r);
  }

  void list_row(const IndexList& l, size_t r) const {
    if (l.start[r + 1] < l.start[r] || l.start[r + 1] > int64_t(l.index.size()))
      refuse(fmt::format("list row {} ends before it begins", r));
    const uint32_t* const row = l.index.data() + l.start[r];
    const int64_t n = l.start[r + 1] - l.start[r];
    bool fine = n == 0 || int64_t(row[n - 1] & ~IndexList::kBoundary) < l.cols;
    for (int64_t e = 1; e < n; ++e)
      fine &= (row[e - 1] & ~IndexList::kBoundary) < (row[e] & ~IndexList::kBoundary);
    if (fine) return;
    int64_t last = -1;
    for (int64_t e = l.start[r]; e < l.start[r + 1]; ++e) {
      const int64_t col = l.index[e] & ~IndexList::kBoundary;
      if (col >= l.cols)
        refuse(fmt::format("index {} in row {}; accepted: below {}", col, r, l.cols));
      if (col <= last) refuse(fmt::format("row {} must rise: {} after {}", r, col, last));
      last = col;
    }
  }

  void rule() const {
    const Window& w = b_.rule.window;
    const bool band = b_.cover.kind == CoverKind::band;
    if (band && !(w.unlimited() && w.sink == 0))
      refuse("give the window as the band or as the rule");
    const int64_t sink = band ? b_.cover.band.sink : w.sink;
    if (sink < 0) refuse(fmt::format("sink must not be negative, got {}", sink));
    if (sink > 0 && !p_.cu_q.empty()) refuse("sink keys need one sequence, not packed ones");
    if (const BitMask* m = b_.rule.mask.get()) {
      const int64_t keys = source_keys(p_, b_);
      if (m->nq != p_.nq || m->nk != keys || (m->batch != 1 && m->batch != p_.batch) ||
          (m->heads != 1 && m->heads != p_.heads) ||
          int64_t(m->words.size()) != m->batch * m->heads * m->nq * m->words_per_row())
        refuse(fmt::format("mask [{},{},{},{}]; accepted: [1|{},1|{},{},{}]", m->batch, m->heads,
                           m->nq, m->nk, p_.batch, p_.heads, p_.nq, keys));
    }
  }

  void per_head(const char* name, const std::vector<float>& x, bool infinite_ok) const {
    if (x.empty()) return;
    if (int64_t(x.size()) != p_.heads)
      refuse(fmt::format("{} has {} values; accepted: one a query head, {}", name, x.size(),
                         p_.heads));
    for (float f : x)
      if (std::isnan(f) || (!infinite_ok && std::isinf(f)))
        refuse(fmt::format("{} must be {}, got {}", name, infinite_ok ? "numbers" : "finite", f));
  }

  void score() const {
    const Score& s = b_.score;
    const int64_t keys = source_keys(p_, b_);
    if (!(s.softcap >= 0) || std::isinf(s.softcap))
      refuse(fmt::format("softcap must be 0 (off) or positive, got {}", s.softcap));
    per_head("alibi", s.alibi, false);
    per_head("bias_scale", s.bias_scale, false);
    const auto fits = [](int64_t have, int64_t want) { return have == 1 || have == want; };
    if (const View& v = s.bias.view; v)
      if (!fits(v.size[0], p_.batch) || !fits(v.size[1], p_.heads) || v.size[2] != p_.nq ||
          v.size[3] != keys || info(v.dtype).block != 1 || v.dtype == DType::i32)
        refuse(fmt::format("bias {}; accepted: f32, f16 or bf16 [1|{},1|{},{},{}]", v.shape(),
                           p_.batch, p_.heads, p_.nq, keys));
    if (const View& v = s.key_bias.view; v)
      if (!fits(v.size[0], p_.batch) || !fits(v.size[1], p_.kv_heads) || v.size[2] != 1 ||
          v.size[3] != keys || v.dtype != DType::f32)
        refuse(fmt::format("key_bias {}; accepted: f32[1|{},1|{},1,{}]", v.shape(), p_.batch,
                           p_.kv_heads, keys));
  }

  void norm() const {
    const Norm& n = b_.norm;
    if ((n.kind == NormKind::softmax_sink) == n.sink.empty())
      refuse("sink logits come with norm softmax_sink and only with it");
    per_head("sink", n.sink, true);
    if (std::isnan(n.shift)) refuse("sigmoid shift must be a number");
  }

  void weight() const {
    const View& w = b_.weight.directions.view;
    if ((b_.weight.kind == WeightKind::random) != bool(w))
      refuse("directions come with weights of random features and only with them");
    if (b_.weight.kind == WeightKind::exponential) return;
    if (w && (w.dtype != DType::f32 || w.device != Device::cpu || w.size[0] != 1 ||
              w.size[1] != 1 || w.size[2] < 1 || w.size[3] != p_.dk))
      refuse(fmt::format("directions {}; accepted: f32[1,1,any,{}] in the CPU's memory", w.shape(),
                         p_.dk));
    const Score& s = b_.score;
    if (s.softcap > 0 || !s.alibi.empty() || s.bias || s.key_bias)
      refuse("weights of features take no soft-cap, ALiBi or bias");
    if (b_.norm.kind == NormKind::sigmoid) refuse("weights of features take no sigmoid");
    if (b_.source.kind != SourceKind::raw) refuse("weights of features need raw keys");
    if (b_.order) refuse("weights of features need axes that are not permuted");
  }

  void value_skip() const {
    if (!(b_.value_skip >= 0) || std::isinf(b_.value_skip))
      refuse(fmt::format("value skip must be 0 (off) or positive, got {}", b_.value_skip));
    if (b_.value_skip == 0) return;
    if (b_.source.kind != SourceKind::raw || b_.order)
      refuse("skipping values needs raw keys that are not permuted");
    if (b_.norm.kind == NormKind::sigmoid || b_.weight.kind != WeightKind::exponential)
      refuse("skipping values needs a softmax");
  }

  const Problem& p_;
  const Branch& b_;
  size_t number_;
};

// Tokens of the raw cache that a source row stands for; given keys, which may share tokens, stand
// for themselves.
void add_tokens(const Problem& p, const Branch& b, const uint64_t* row, std::vector<uint64_t>* out,
                const auto& clash) {
  const int64_t block = b.source.kind == SourceKind::pooled ? b.source.block : 1;
  for (int64_t j = 0; j < source_keys(p, b); ++j) {
    if (!(row[j >> 6] >> (j & 63) & 1)) continue;
    for (int64_t t = j * block; t < std::min((j + 1) * block, p.nk); ++t) {
      uint64_t& word = (*out)[t >> 6];
      if (word >> (t & 63) & 1) clash(t);
      word |= 1ull << (t & 63);
    }
  }
}

// Branches of one source under one softmax must not read a token twice; a mean is another key than
// the tokens it stands for, and some methods read both. Every row of small problems; 66 rows,
// spread evenly with both ends, where the whole would be more than 2^26 pairs.
void check_disjoint(const Plan& plan) {
  const Problem& p = plan.problem;
  const int64_t pairs = p.batch * p.heads * p.nq * p.nk;
  const int64_t step = pairs <= int64_t(1) << 26 ? 1 : std::max<int64_t>(1, p.nq / 65);
  std::vector<PairRows> rows;
  for (const Branch& b : plan.branches) rows.emplace_back(p, b);
  std::vector<size_t> source;  // of each branch: the first branch with the same keys
  for (const Branch& b : plan.branches)
    source.push_back(std::find_if(plan.branches.begin(), plan.branches.end(),
                                  [&](const Branch& a) {
                                    return a.source.kind == b.source.kind &&
                                           a.source.block == b.source.block &&
                                           a.source.keys.view.data == b.source.keys.view.data;
                                  }) -
                     plan.branches.begin());
  std::vector<std::vector<uint64_t>> seen(rows.size(),
                                          std::vector<uint64_t>(size_t((p.nk + 63) / 64)));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; i = i + step < p.nq || i == p.nq - 1 ? i + step : p.nq - 1) {
        for (std::vector<uint64_t>& s : seen) std::fill(s.begin(), s.end(), 0);
        for (size_t n = 0; n < rows.size(); ++n)
          add_tokens(p, plan.branches[n], rows[n].row(b, h, i), &seen[source[n]], [&](int64_t t) {
            throw Error(fmt::format(
                "plan: branches under one softmax overlap: query {} of head {} reads key {} twice",
                i, h, t));
          });
      }
}

}  // namespace

void check_form(const Plan& plan) {
  const Problem& p = plan.problem;
  p.check();
  const size_t n = plan.branches.size();
  if (n < 1 || n > 16) throw Error(fmt::format("plan: 1 to 16 branches, got {}", n));
  if (plan.combine == Combine::only && n != 1)
    throw Error(fmt::format("plan: {} branches need 'same' or 'gated'", n));
  for (size_t i = 0; i < n; ++i) Checker(p, plan.branches[i], i).check();
  if (plan.combine == Combine::same) {
    const Norm& first = plan.branches[0].norm;
    for (const Branch& b : plan.branches)
      if (b.norm.kind != first.kind || b.norm.sink != first.sink)
        throw Error("plan: branches under one softmax must share their norm");
  }
  if (plan.combine == Combine::gated) {
    const View& g = plan.gate.view;
    if (!g || g.dtype != DType::f32 || g.size[0] != p.batch || g.size[1] != p.heads ||
        g.size[2] != p.nq || g.size[3] != int64_t(n))
      throw Error(fmt::format("plan: gate {}; accepted: f32[{},{},{},{}]", g ? g.shape() : "none",
                              p.batch, p.heads, p.nq, n));
  }
}

void Plan::validate() const {
  check_form(*this);
  if (combine == Combine::same) check_disjoint(*this);
}

}  // namespace regard
