// Plans for people: text and SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "regard/plan.h"

namespace regard {
namespace {

std::string window_text(const Window& w) {
  const auto end = [](int64_t n) {
    return n < 0 ? std::string("unlimited") : fmt::format("{}", n);
  };
  std::string s = fmt::format("left {} right {}", end(w.left), end(w.right));
  if (w.sink) s += fmt::format(" sink {}", w.sink);
  return s;
}

std::string cover_text(const Branch& b) {
  const Cover& c = b.cover;
  switch (c.kind) {
    case CoverKind::all:
      return "all";
    case CoverKind::band:
      return "band (" + window_text(c.band) + ")";
    default:
      break;
  }
  const IndexList& l = *c.list;
  int64_t boundary = 0;
  for (uint32_t e : l.index) boundary += (e & IndexList::kBoundary) != 0;
  const char* sharing = l.heads == 1 ? "one list for all heads" : "a list per head";
  std::string s = fmt::format("{} {}x{}, {} kept ({} boundary), {}",
                              c.kind == CoverKind::tiles ? "tiles" : "columns", l.bq, l.bk,
                              l.index.size(), boundary, sharing);
  if (!l.list_of.empty()) s += fmt::format(", {} rows share {} lists", l.list_of.size(), l.lists());
  return s;
}

// Sizes say who shares a permutation: one for all heads, for a group, or a head's own.
std::string order_text(const Order& o) {
  std::string s;
  if (o.queries) s += fmt::format(", queries in order [{},{}]", o.queries->batch, o.queries->heads);
  if (o.keys) s += fmt::format(", keys in order [{},{}]", o.keys->batch, o.keys->heads);
  return s;
}

std::string rule_text(const Rule& r) {
  std::string s = r.causal ? "causal" : "every pair";
  if (!r.window.unlimited()) s += ", window " + window_text(r.window);
  if (r.mask) s += fmt::format(", mask [{},{}]", r.mask->batch, r.mask->heads);
  return s;
}

std::string score_text(const Score& s) {
  std::string out;
  if (s.softcap > 0) out += fmt::format(", softcap {}", s.softcap);
  if (!s.alibi.empty()) out += ", alibi";
  if (s.bias) out += ", bias " + s.bias.view.shape();
  if (s.key_bias) out += ", key bias";
  return out;
}

std::string norm_text(const Norm& n) {
  switch (n.kind) {
    case NormKind::softmax:
      return "softmax";
    case NormKind::softmax_sink:
      return "softmax with sink";
    default:
      return fmt::format("sigmoid(shift {})", n.shift);
  }
}

// What the branch does beside exp(logit) and the values as they are.
std::string weight_text(const Branch& b) {
  static const char* const kNames[] = {"", "softmax", "elu", "relu", "random"};
  std::string s;
  if (b.weight.kind != WeightKind::exponential)
    s += fmt::format("; linear by {} features", kNames[int(b.weight.kind)]);
  if (b.weight.directions) s += fmt::format(" of {} directions", b.weight.directions.view.size[2]);
  if (b.source.value_map) s += "; values mapped";
  if (b.value_skip > 0) s += fmt::format("; values skipped {} below", b.value_skip);
  return s;
}

}  // namespace

std::string describe(const Plan& plan) {
  static const char* const kCombine[] = {"only", "same softmax", "gated"};
  std::string s = fmt::format("plan {:016x}  {}  scale {:.6g}  combine {}\n", hash(plan),
                              plan.problem.str(), plan.problem.scale, kCombine[int(plan.combine)]);
  for (size_t i = 0; i < plan.branches.size(); ++i) {
    const Branch& b = plan.branches[i];
    const std::string source =
        b.source.kind == SourceKind::raw ? "raw"
        : b.source.kind == SourceKind::pooled
            ? fmt::format("pooled by {}", b.source.block)
            : fmt::format("given, of {} tokens every {}", b.source.block, b.source.stride);
    s += fmt::format("  branch {}: {}{}; {}; {}; {}{}{}; {}\n", i, source, order_text(b.order),
                     cover_text(b), rule_text(b.rule), norm_text(b.norm), score_text(b.score),
                     weight_text(b), b.numeric);
  }
  const Cost c = cost(plan);
  s += fmt::format("  density {:.4f} of {:.4g} pairs, {:.4g} FLOP in {:.0f} tiles\n", c.density(),
                   c.causal_pairs, c.flops, c.tiles);
  const double each = c.causal_pairs / double(plan.problem.heads);
  for (int64_t h = 0; each > 0 && h < plan.problem.heads; ++h)
    s += fmt::format("{}head {} {:.4f}",
                     h % 8 ? "  "
                     : h   ? "\n  "
                           : "  ",
                     h, c.head_pairs[size_t(h)] / each);
  return s + "\n";
}

std::string svg(const Plan& plan, int64_t head, int size) {
  const Problem& p = plan.problem;
  const int64_t longest = std::max<int64_t>({p.nq, p.nk, 1});
  const int64_t cell = std::max<int64_t>(1, (longest + 127) / 128);
  const std::vector<float> share = coverage(plan, 0, head, cell, cell);
  const int64_t rows = (p.nq + cell - 1) / cell, cols = (p.nk + cell - 1) / cell;
  std::string s = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' width='{}' "
      "shape-rendering='crispEdges'><title>head {}: {} queries down, {} keys across; one cell {} x "
      "{} tokens</title><rect width='{}' height='{}' fill='#e8e8ee'/>",
      cols, rows, size, head, p.nq, p.nk, cell, cell, cols, rows);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float x = share[size_t(r * cols + c)];
      if (x == 0) continue;
      s += fmt::format("<rect x='{}' y='{}' width='1' height='1' fill='{}'", c, r,
                       x < 0 ? "#fff" : "#1f4e8c");
      if (x > 0 && x < 1) s += fmt::format(" fill-opacity='{:.2f}'", 0.15 + 0.85 * x);
      s += "/>";
    }
  return s + "</svg>";
}

}  // namespace regard
