// What each method costs and loses, head by head, on the activations of an exact run. Layer: cli.
#pragma once
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control.h"
#include "regard/method.h"

namespace regard::cli {

struct HeadFacts {
  double seconds = 0;          // its share of planning and of reading its pairs
  double error = 0, norm = 0;  // sums of squares: |out - exact|^2, |exact|^2
  double pairs = 0;
  double relative() const { return norm > 0 ? std::sqrt(error / norm) : 0; }
};
struct LayerFacts {
  std::vector<std::vector<HeadFacts>> heads;  // [candidate][head]
  std::vector<std::set<std::string>> kinds;   // [candidate]: kinds of branches its plans need
};

class Calibration {
 public:
  // Candidate 0 must be dense. Strips that begin before `from` are passed over.
  Calibration(std::vector<Method> candidates, int64_t from, int threads);
  void add(const ggml::Node& node);
  const std::map<int64_t, LayerFacts>& layers() const { return layers_; }
  const std::map<std::string, std::string>& refused() const { return refused_; }

 private:
  std::vector<Method> candidates_;
  int64_t from_;
  int threads_;
  std::map<int64_t, LayerFacts> layers_;
  std::map<std::string, std::string> refused_;  // spec -> why
};

// For each head the cheapest candidate whose relative error is at most `bound`, with at most
// `kinds` kinds of branches a layer (each costs a merge): index of the candidate, by head.
std::vector<int64_t> assign(const LayerFacts& layer, double bound, size_t kinds = 4);

}  // namespace regard::cli
