#include "cli/run_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace regard::cli {
namespace {

int terminal_width() {
  winsize w = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

}  // namespace

std::string progress_line(const std::string& name, int64_t pass, int64_t passes, int64_t done,
                          int64_t tokens, double pass_seconds, double left, int width) {
  const int bar = 20, filled = int(bar * done / std::max<int64_t>(1, tokens));
  const double rate = pass_seconds > 0 ? double(done) / pass_seconds : 0;
  const int64_t s = int64_t(left + 0.5);
  std::string line =
      fmt::format("[{:#<{}}{:.<{}}] {}/{} {}  {}/{} tokens  {:.0f} tokens/s  {}:{:02} left", "",
                  filled, "", bar - filled, pass, passes, name, done, tokens, rate, s / 60, s % 60);
  if (int(line.size()) >= width) line.resize(size_t(std::max(0, width - 1)));
  return line;
}

Progress::Progress(int64_t passes, int64_t tokens)
    : shown_(isatty(STDOUT_FILENO) && isatty(STDERR_FILENO)),
      passes_(passes),
      tokens_(tokens),
      start_(Clock::now()) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void Progress::set_left(double seconds) {
  left_ = seconds;
  left_at_ = Clock::now();
}

void Progress::begin(const std::string& name) {
  name_ = name;
  pass_start_ = Clock::now();
  update(0);
}

void Progress::update(int64_t done) {
  if (!shown_) return;
  const double all = double(finished_ * tokens_ + done);
  double left = all > 0 ? seconds_since(start_) * (double(passes_ * tokens_) - all) / all : 0;
  if (left_ >= 0) left = std::max(0.0, left_ - seconds_since(left_at_));
  const std::string line = progress_line(name_, finished_ + 1, passes_, done, tokens_,
                                         seconds_since(pass_start_), left, terminal_width());
  std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
  std::fflush(stderr);
}

void Progress::end() { ++finished_; }

}  // namespace regard::cli
