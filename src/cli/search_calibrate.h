// What each method costs and loses, head by head, on the activations of an exact run. Layer: cli.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control.h"
#include "plan/by_head.h"
#include "regard/method.h"

namespace regard::cli {

// Plain text, and the end of it that asks for what lies far back (recall.h). Apart, because few
// tokens of plain text need the heads that find things again.
enum Part { kPlain, kRecall, kParts };

struct HeadFacts {
  double seconds = 0;   // of planning it by itself and of reading its pairs by a list of its own
  double together = 0;  // the same, planned with all heads of its layer
  double pairs = 0;
  double error[kParts] = {}, norm[kParts] = {};  // sums of squares: |out - exact|^2, |exact|^2
};
struct LayerFacts {
  std::vector<std::vector<HeadFacts>> heads;  // [candidate][head]
  std::vector<std::set<HeadKind>> kinds;      // [candidate]: kinds of branches its plans need
  int64_t group = 1;                          // heads that share a KV head
};
using Layers = std::map<int64_t, LayerFacts>;

class Calibration {
 public:
  // Candidate 0 must be dense. Strips that begin before `from` are passed over; those from `recall`
  // on are of that part.
  Calibration(std::vector<Method> candidates, int64_t from, int64_t recall, int threads);
  void add(const ggml::Node& node);
  const Layers& layers() const { return layers_; }
  const std::map<std::string, std::string>& refused() const { return refused_; }

 private:
  std::vector<Method> candidates_;
  int64_t from_, recall_;
  int threads_;
  Layers layers_;
  std::map<std::string, std::string> refused_;  // spec -> why
};

// The candidate of each head, by layer, that costs the least time in all while the error of the
// layers' outputs stays within `bound`: |out - exact| / |exact| over all heads of a layer, in the
// worse of the two parts, root mean square over layers. Heads that share a KV head may take one
// candidate together. Time and error are traded at one rate for
// all heads, so that a head is dense only where that buys the most. At most `kinds` kinds of
// branches a layer (each costs a merge).
std::map<int64_t, std::vector<int64_t>> assign(const Layers& layers, double bound,
                                               size_t kinds = 4);

}  // namespace regard::cli
