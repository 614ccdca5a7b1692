#include "cli/run_watch.h"

#include <algorithm>
#include <chrono>

#include "regard/plan.h"

namespace regard::cli {

std::vector<int> spread(const std::set<int>& from, int64_t want) {
  const std::vector<int> all(from.begin(), from.end());
  const int64_t n = int64_t(all.size());
  if (want >= n) return all;
  if (want == 1) return {all[size_t(n / 2)]};
  std::vector<int> out;
  for (int64_t i = 0; i < want; ++i) out.push_back(all[size_t(i * (n - 1) / (want - 1))]);
  return out;
}

void Watch::begin(bool count_pairs) {
  *this = Watch();
  count_pairs_ = count_pairs;
}

void Watch::add(const ggml::Node& node) {
  attention_ += node.seconds;
  plan_ += node.plan_seconds;
  const size_t layer = size_t(std::max(0, node.layer));
  layer_seconds_.resize(std::max(layer_seconds_.size(), layer + 1));
  layer_seconds_[layer] += node.seconds;
  ++calls_;
  if (node.trace)
    for (const auto& [stage, seconds] : node.trace->seconds) stages_[stage] += seconds;
  if (!node.exact_reason.empty()) ++exact_calls_[node.exact_reason];
  if (!count_pairs_ || !node.plan) return;
  off_the_clock([&] { count(node); });
}

void Watch::off_the_clock(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  own_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Watch::count(const ggml::Node& node) {
  const size_t heads = size_t(node.plan->problem.heads);
  const size_t layer = size_t(std::max(0, node.layer));
  if (layer >= pairs_.kept.size()) {
    pairs_.kept.resize(layer + 1);
    pairs_.causal.resize(layer + 1);
  }
  std::vector<double>&kept = pairs_.kept[layer], &causal = pairs_.causal[layer];
  kept.resize(std::max(kept.size(), heads));
  causal.resize(std::max(causal.size(), heads));
  const Cost c = cost(*node.plan);
  for (size_t h = 0; h < heads; ++h) {
    kept[h] += c.head_pairs[h];
    causal[h] += c.causal_pairs / double(heads);
  }
  pairs_.tile_pairs += c.tile_pairs;
  // A sliding layer's first strips, too short for its window, look global.
  const Branch& b = node.plan->branches.front();
  const bool global =
      b.rule.causal && !b.rule.mask && b.rule.window.unlimited() && b.cover.kind == CoverKind::all;
  if (global && !windowed_.count(node.layer)) global_.insert(node.layer);
  if (!global) {
    windowed_.insert(node.layer);
    global_.erase(node.layer);
  }
}

}  // namespace regard::cli
