// One pass of the model under one mode of the plug-in, watched node by node. Layer: cli.
#pragma once
#include <functional>
#include <string>

#include "cli/run_model.h"
#include "cli/run_watch.h"
#include "control.h"

namespace regard::cli {

struct TimedPass {
  ggml::Mode mode = ggml::Mode::exact;
  std::string spec{};                             // of mode method
  bool count_pairs = false;                       // by layer and head; off the clock
  std::function<void(const ggml::Node&)> draw{};  // every node after the warm-up, off the clock
  Pass pass{};
};
struct Timed {
  double seconds = 0, peak_mib = 0;  // without what watching cost
  Watch watch;                       // of the pass, warm-up excluded
};
// Throws Error where the plug-in is not asked although it should be, or the other way round.
Timed timed_pass(const Model& model, ggml::Control& control, TimedPass p);

}  // namespace regard::cli
