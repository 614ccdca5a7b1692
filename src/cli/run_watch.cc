#include "cli/run_watch.h"

#include <algorithm>
#include <chrono>

#include "regard/plan.h"

namespace regard::cli {

void Watch::begin(bool count_pairs) {
  *this = Watch();
  count_pairs_ = count_pairs;
}

void Watch::add(const ggml::Node& node) {
  attention_ += node.seconds;
  plan_ += node.plan_seconds;
  ++calls_;
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
  const size_t layer = size_t(std::max(0, node.layer));  // unnamed caches are counted with layer 0
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
