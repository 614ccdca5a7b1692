// What every attention node of a pass did: seconds, pairs, refusals. Layer: cli.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/run.h"
#include "control.h"

namespace regard::cli {

// `want` layers of `from`, evenly spread, first and last among them.
std::vector<int> spread(const std::set<int>& from, int64_t want);

class Watch {
 public:
  // `count_pairs` also counts pairs by layer and head. That costs time on the computing thread, so
  // own_seconds() is to be taken off the pass's wall clock.
  void begin(bool count_pairs);
  void add(const ggml::Node& node);
  // Runs `work` and counts its time as the watcher's own.
  void off_the_clock(const std::function<void()>& work);

  double attention_seconds() const { return attention_; }
  double plan_seconds() const { return plan_; }
  // Seconds by stage, as the nodes' traces have them.
  const std::map<std::string, double>& stages() const { return stages_; }
  // Seconds of attention by layer; calls of unnamed caches are counted with layer 0.
  const std::vector<double>& layer_seconds() const { return layer_seconds_; }
  double own_seconds() const { return own_; }
  int64_t calls() const { return calls_; }
  const std::map<std::string, int64_t>& exact_calls() const { return exact_calls_; }
  const PairCounts& pairs() const { return pairs_; }
  // Layers whose plan read every causal pair in every strip: no window, one sequence.
  const std::set<int>& global_layers() const { return global_; }

 private:
  void count(const ggml::Node& node);

  bool count_pairs_ = false;
  double attention_ = 0, plan_ = 0, own_ = 0;
  int64_t calls_ = 0;
  std::map<std::string, int64_t> exact_calls_;
  std::map<std::string, double> stages_;
  std::vector<double> layer_seconds_;
  PairCounts pairs_;
  std::set<int> global_, windowed_;
};

}  // namespace regard::cli
