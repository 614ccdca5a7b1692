// What every output says alike: medians, densities, how it was measured.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cli/run.h"

namespace regard::cli {

double median(std::vector<double> v) {
  if (v.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(v.begin(), v.end());
  const size_t n = v.size();
  return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

namespace {
double sum(const std::vector<std::vector<double>>& rows) {
  return std::accumulate(rows.begin(), rows.end(), 0.0, [](double s, const auto& row) {
    return std::accumulate(row.begin(), row.end(), s);
  });
}
}  // namespace

double PairCounts::density() const { return causal.empty() ? 1 : sum(kept) / sum(causal); }
double PairCounts::tile_density() const { return causal.empty() ? 1 : tile_pairs / sum(causal); }
double PairCounts::at(int64_t layer, int64_t head) const {
  const auto &k = kept[size_t(layer)], &c = causal[size_t(layer)];
  return head < int64_t(k.size()) && c[size_t(head)] > 0 ? k[size_t(head)] / c[size_t(head)]
                                                         : std::numeric_limits<double>::quiet_NaN();
}

double Row::prefill() const { return median(prefill_s); }
double Row::attention() const { return median(attention_s); }
double Row::plan() const { return median(plan_s); }

double best_possible(const Row& llama) {
  return llama.prefill() / std::max(1e-9, llama.prefill() - llama.attention());
}

std::string how_measured(const RunInfo& info) {
  std::string s = info.repeat == 1 ? "Every row ran once, in the order of the table"
                                   : fmt::format(
                                         "The rows alternated {} times in the order of the "
                                         "table; seconds are medians",
                                         info.repeat);
  s += fmt::format(
      ". The model was in memory, and before its clock started each pass ran one micro-batch of {} "
      "tokens in its own context and cleared the cache. Prefill is the time inside llama_decode, "
      "logits of {} scored positions included. Attention is timed node by node inside the plug-in, "
      "planning included; for llama.cpp's own row in a pass of its own, in which the plug-in calls "
      "ggml's kernel. Counting pairs and drawing plans is taken off the clock; the maps of exact "
      "attention come from a pass of their own. Peak memory is the whole process during the row's "
      "pass.",
      info.ubatch, info.scored);
  if (info.kl_scored < info.scored)
    s += fmt::format(" KL is over {} of the scored positions, evenly spaced, to bound memory.",
                     info.kl_scored);
  return s;
}

}  // namespace regard::cli
