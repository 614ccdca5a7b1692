// How a program in the same process (regard run) steers and watches the plug-in. Both sides are
// built together. ggml_backend_reg_get_proc_address(reg, "regard_control") returns the Control* as
// void*; it lives as long as the backend is loaded.
#pragma once
#include <functional>
#include <string>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"

namespace regard::ggml {

enum class Mode {
  off,     // claim nothing: llama.cpp is as if the plug-in were not there
  ggml,    // claim attention and run ggml's own CPU kernel on it, so that it is timed like ours
  exact,   // Regard, exact
  method,  // Regard, the method where it applies, exact (with the reason) elsewhere
};

// One attention node, after it ran; where its sequences have different masks, one call for each of
// them. References live only during the call.
struct Node {
  int layer = -1;                  // from the name of the cache tensor behind K; -1: unknown
  const Inputs* inputs = nullptr;  // null in mode ggml
  const Plan* plan = nullptr;      // null in mode ggml
  int64_t nq = 0, nk = 0, offset = 0;
  double seconds = 0;            // planning and running, wall clock
  double plan_seconds = 0;       // of these, planning
  const Trace* trace = nullptr;  // seconds by stage; null in mode ggml
  std::string exact_reason;      // mode method: why the node ran exactly; empty: the method ran
};

class Control {
 public:
  virtual ~Control() = default;
  // Takes effect at the next graph; but a llama_context whose graphs were split while the mode was
  // `off` keeps them to itself: make a new context after `off`. The spec "@FILE" is a profile
  // (exec/profile.h). Throws regard::Error for a bad
  // spec. threads 0: REGARD_THREADS, else the caller's (llama.cpp tells the backend), else all
  // cores.
  virtual void configure(Mode mode, const std::string& method_spec, int threads) = 0;
  // One of numerics() for every node from the next graph on; empty: default_numeric().
  // Throws regard::Error for a name that is none or that this machine cannot compute in.
  virtual void set_numeric(const std::string& name) = 0;
  // Called on the computing thread after every node; empty: nobody watches.
  virtual void observe(std::function<void(const Node&)> observer) = 0;
};

}  // namespace regard::ggml
