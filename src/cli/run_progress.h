// A progress bar on the terminal; nothing where stdout or stderr is not one. Layer: cli.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace regard::cli {

class Progress {
 public:
  // `passes` of `tokens` each.
  Progress(int64_t passes, int64_t tokens);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin(const std::string& name);
  void update(int64_t done);  // tokens of this pass
  void end();                 // the pass is over
  void clear();               // takes the bar off the terminal

 private:
  using Clock = std::chrono::steady_clock;
  bool shown_;
  int64_t passes_, tokens_, finished_ = 0;
  std::string name_;
  Clock::time_point start_, pass_start_;
};

// "[######....] 3/5 exact  3584/7680 tokens  612 tokens/s  0:41 left", at most `width` columns.
std::string progress_line(const std::string& name, int64_t pass, int64_t passes, int64_t done,
                          int64_t tokens, double pass_seconds, double left, int width);

}  // namespace regard::cli
