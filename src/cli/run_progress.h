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

  // Seconds left from now, where the caller knows better than the passes so far.
  void set_left(double seconds);
  void begin(const std::string& name);
  void update(int64_t done);  // tokens of this pass
  void end();                 // the pass is over
  void clear();               // takes the bar off the terminal

 private:
  using Clock = std::chrono::steady_clock;
  bool shown_;
  int64_t passes_, tokens_, finished_ = 0;
  std::string name_;
  double left_ = -1;  // as set_left() had it at left_at_; negative: not said
  Clock::time_point start_, pass_start_, left_at_;
};

// "[######....] 3/5 exact  3584/7680 tokens  612 tokens/s  0:41 left", at most `width` columns.
std::string progress_line(const std::string& name, int64_t pass, int64_t passes, int64_t done,
                          int64_t tokens, double pass_seconds, double left, int width);

}  // namespace regard::cli
