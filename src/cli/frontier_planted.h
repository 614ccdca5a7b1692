// The second axis of the frontier: inputs whose best mask is known. Layer: cli.
#pragma once
#include <map>
#include <string>

#include "cli/frontier.h"
#include "regard/inputs.h"

namespace regard::cli {

class PlantedAxis {
 public:
  PlantedAxis(int64_t tokens, int threads, uint64_t seed);

  // {kind: "best", inputs: [{input, pairs: [[density, mass], ..], tiles: [..]}]}: mass kept by the
  // best mask of each size, of single pairs and of tiles of 64 x 64.
  Json best() const;
  // {kind: "planted", name, points: [{input, density, mass, plan_s, attend_s}]}, or `refusal` in
  // place of the numbers.
  Json row(const Setting& s) const;

 private:
  struct Input {
    std::string name;
    Tensor q, k, v, full;  // full: exact_lse
    Inputs x;
  };
  int64_t tokens_;
  int threads_;
  std::vector<Input> inputs_;
};

}  // namespace regard::cli
