// by_head: plans of neighbouring heads as one plan, list by list.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "plan/by_head.h"
#include "regard/status.h"

namespace regard {
namespace {

constexpr int32_t kTile = 64;  // of covers that state no tile size
constexpr size_t kMostBranches = 16;

// Heads whose plan has no such branch keep empty rows.
struct Merged {
  int32_t bq = 0, bk = 0;  // greatest common divisors
  bool causal = false;
  std::vector<std::vector<uint32_t>> rows;  // [(b * heads + h) * list rows + r]
};

Window window_of(const Branch& b) {
  return b.cover.kind == CoverKind::band ? b.cover.band : b.rule.window;
}

bool is_columns(const Branch& b) { return b.cover.kind == CoverKind::columns; }
bool reads_nothing(const Branch& b) { return b.cover.list && b.cover.list->index.empty(); }
bool reads_columns(const Plan& part) {
  for (const Branch& b : part.branches)
    if (is_columns(b) && !reads_nothing(b)) return true;
  return false;
}

HeadKind exact_kind(const Branch& b) {
  const Window w = window_of(b);
  return {is_columns(b), w.left, w.right, w.sink, b.value_skip};
}

// Whole tiles of a part that reads columns too could hold a pair of those.
HeadKind kind_of(const Plan& part, const Branch& b, bool whole_tiles) {
  return whole_tiles && !reads_columns(part) ? HeadKind{false, -1, -1, 0, b.value_skip}
                                             : exact_kind(b);
}

int32_t tile_q(const Branch& b) { return b.cover.list ? b.cover.list->bq : kTile; }
int32_t tile_k(const Branch& b) { return b.cover.list ? b.cover.list->bk : kTile; }

// Tile rows [r0, r1) of merged lists under row r of the branch's own, as merged columns.
void add_row(const Problem& p, const Branch& b, const Merged& m, int64_t id,
             std::vector<uint32_t>* out) {
  const IndexList& l = *b.cover.list;
  const uint32_t per = uint32_t(l.bk / m.bk);
  const uint32_t cols = uint32_t((p.nk + m.bk - 1) / m.bk);
  for (int64_t e = l.start[size_t(id)]; e < l.start[size_t(id) + 1]; ++e) {
    const uint32_t col = (l.index[size_t(e)] & ~IndexList::kBoundary) * per;
    for (uint32_t c = col; c < std::min(cols, col + per); ++c) out->push_back(c);
  }
}

// Some pair of tile (r, c) lies in the window.
bool touches(const Problem& p, const Window& w, const Merged& m, int64_t r, int64_t c) {
  const int64_t q0 = r * m.bq + p.offset, q1 = std::min((r + 1) * m.bq, p.nq) - 1 + p.offset;
  const int64_t k0 = c * m.bk, k1 = std::min((c + 1) * m.bk, p.nk) - 1;
  if (w.right >= 0 && k0 > q1 + w.right) return false;
  return w.left < 0 || k1 >= q0 - w.left || k0 < w.sink;
}

void add_branch(const Problem& p, const Plan& part, const Branch& b, int64_t head0, Merged* m) {
  const int64_t rows = (p.nq + m->bq - 1) / m->bq, cols = (p.nk + m->bk - 1) / m->bk;
  const Window w = window_of(b);
  m->causal = b.rule.causal;
  m->rows.resize(size_t(p.batch * p.heads * rows));
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t h = 0; h < part.problem.heads; ++h)
      for (int64_t r = 0; r < rows; ++r) {
        auto& row = m->rows[size_t((n * p.heads + head0 + h) * rows + r)];
        const size_t old = row.size();
        if (b.cover.list) {
          const IndexList& l = *b.cover.list;
          add_row(p, b, *m, l.row_id(n, h, r * m->bq / l.bq, part.problem.heads), &row);
        } else {
          row.resize(old + size_t(cols));
          std::iota(row.begin() + int64_t(old), row.end(), 0u);
        }
        // lower() drops what the rule forbids, and masks the rest.
        const auto outside = [&](uint32_t c) { return !touches(p, w, *m, r, c); };
        row.erase(std::remove_if(row.begin() + int64_t(old), row.end(), outside), row.end());
        if (old > 0) {
          std::sort(row.begin(), row.end());
          row.erase(std::unique(row.begin(), row.end()), row.end());
        }
      }
}

Plan finish(const Problem& p, const HeadKind& kind, const Merged& m) {
  IndexList l;
  l.batch = p.batch;
  l.heads = p.heads;
  l.bq = m.bq, l.bk = m.bk;
  l.rows = (p.nq + m.bq - 1) / m.bq;
  l.cols = (p.nk + m.bk - 1) / m.bk;
  l.start.push_back(0);
  for (const auto& row : m.rows) {
    l.index.insert(l.index.end(), row.begin(), row.end());
    l.start.push_back(int64_t(l.index.size()));
  }
  Plan out = Plan::columns(p, std::move(l));
  const auto& [columns, left, right, sink, value_skip] = kind;
  if (!columns) out.branches[0].cover.kind = CoverKind::tiles;
  out.causal(m.causal).window({left, right, sink}).value_skip(value_skip);
  return out;
}

std::set<HeadKind> kinds_of(const Plan& part, bool whole_tiles) {
  std::set<HeadKind> out;
  for (const Branch& b : part.branches)
    if (!reads_nothing(b)) out.insert(kind_of(part, b, whole_tiles));
  return out;
}

void check_parts(const Problem& p, const std::vector<Plan>& parts) {
  int64_t heads = 0;
  for (const Plan& part : parts) {
    if (const char* why = not_by_head(part))
      throw Error(
          fmt::format("plan by head: the plan of {} heads ({}) has {}; accepted: raw keys under "
                      "one softmax, without masks",
                      part.problem.heads, part.problem.str(), why));
    if (part.problem.nq != p.nq || part.problem.nk != p.nk || part.problem.batch != p.batch ||
        part.problem.offset != p.offset || !p.cu_q.empty())
      throw Error(fmt::format("plan by head: a part is for {}, the whole for {}",
                              part.problem.str(), p.str()));
    heads += part.problem.heads;
  }
  if (heads != p.heads)
    throw Error(fmt::format("plan by head: parts of {} heads for {}", heads, p.heads));
}

}  // namespace

const char* not_by_head(const Plan& part) {
  if (part.combine == Combine::gated) return "gated branches";
  for (const Branch& b : part.branches) {
    if (b.source.kind != SourceKind::raw) return "pooled keys";
    if (b.order) return "permuted axes";
    if (b.weight.kind != WeightKind::exponential) return "weights of features";
    if (b.source.value_map) return "mapped values";
    if (b.rule.mask) return "a mask";
    if (b.numeric != part.branches[0].numeric) return "several numerics";
  }
  return nullptr;
}

std::set<HeadKind> head_kinds(const Plan& part) { return kinds_of(part, true); }

Plan plan_by_head(const Problem& p, const std::vector<Plan>& parts) {
  check_parts(p, parts);
  if (parts.size() == 1) return parts[0];
  std::set<HeadKind> exact;
  for (const Plan& part : parts) exact.merge(kinds_of(part, false));
  const bool whole_tiles = exact.size() > 1;
  std::map<HeadKind, Merged> kinds;
  for (const Plan& part : parts)
    for (const Branch& b : part.branches) {
      if (reads_nothing(b)) continue;
      Merged& m = kinds[kind_of(part, b, whole_tiles)];
      m.bq = std::gcd(m.bq, tile_q(b));
      m.bk = std::gcd(m.bk, tile_k(b));
    }
  if (kinds.empty()) kinds[{}] = {kTile, kTile, parts[0].branches[0].rule.causal, {}};
  if (kinds.size() > kMostBranches)
    throw Error(
        fmt::format("plan by head: {} kinds of branches (columns, and windows of different "
                    "widths); a plan has at most {}",
                    kinds.size(), kMostBranches));
  int64_t head0 = 0;
  for (const Plan& part : parts) {
    for (const Branch& b : part.branches)
      if (!reads_nothing(b)) add_branch(p, part, b, head0, &kinds[kind_of(part, b, whole_tiles)]);
    head0 += part.problem.heads;
  }
  std::vector<Plan> branches;
  for (auto& [kind, merged] : kinds) {
    merged.rows.resize(size_t(p.batch * p.heads * ((p.nq + merged.bq - 1) / merged.bq)));
    branches.push_back(finish(p, kind, merged));
    branches.back().branches[0].numeric = parts[0].branches[0].numeric;
  }
  return branches.size() == 1 ? branches[0] : Plan::same(std::move(branches));
}

}  // namespace regard
