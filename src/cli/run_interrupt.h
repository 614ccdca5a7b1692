// Ctrl-C: a flag that the long loops and llama.cpp's abort callback look at. Layer: cli.
#pragma once
#include <csignal>

namespace regard::cli {

struct Interrupted {};  // thrown by the passes; rows so far stay valid

// While it lives, the first SIGINT sets the flag; a second one ends the program at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_;
};

bool interrupted();
void check_interrupt();  // throws Interrupted

}  // namespace regard::cli
