// Ctx: who runs, on how many threads, and what it writes down. Layer: core.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <string>

namespace regard {

// Seconds by stage and remarks, gathered over a call. Not thread safe: one a call.
struct Trace {
  std::map<std::string, double> seconds;     // "estimate.antidiagonal", "select", "lower", "attend"
  std::map<std::string, int64_t> fallbacks;  // reason -> calls that ran on a lesser implementation
  std::string chosen;                        // implementation of the last attend
};

struct Ctx {
  int threads = 1;
  Trace* trace = nullptr;
  void* stream = nullptr;  // GPU tensors: the cudaStream_t after whose work they are read
};

// Adds the time of its scope to trace.seconds[stage]; free when there is no trace.
class StageTimer {
 public:
  StageTimer(const Ctx& ctx, const char* stage)
      : trace_(ctx.trace), stage_(stage), begin_(std::chrono::steady_clock::now()) {}
  ~StageTimer() {
    if (!trace_) return;
    const std::chrono::duration<double> d = std::chrono::steady_clock::now() - begin_;
    trace_->seconds[stage_] += d.count();
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  Trace* trace_;
  const char* stage_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace regard
