// What a method costs on given inputs, stage by stage, beside exact attention. Layer: cli.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "cli/gpu.h"

namespace regard::cli {

// Seconds, medians of the same few runs each.
struct Timing {
  int64_t tokens = 0;                      // keys
  double plan = 0, attend = 0, exact = 0;  // a GPU's lists and works are made ready while planning
  double density = 0;
  std::map<std::string, double> stages;  // of planning
  double total() const { return plan + attend; }
  bool wins() const { return total() < exact; }
};

// Error where the method refuses these inputs.
Timing time_method(const Method& m, const PlacedInputs& x, int threads,
                   const DeviceArgument& device);

// The same at doubled lengths, from 1024 keys or fewer to `input`'s, on planted inputs.
std::vector<Timing> time_lengths(const Method& m, const InputArguments& input, int threads,
                                 const DeviceArgument& device);

// The least length from which the method beat exact attention at every longer one too; 0: none.
int64_t break_even(const std::vector<Timing>& by_length);

}  // namespace regard::cli
