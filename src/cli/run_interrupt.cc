#include "cli/run_interrupt.h"

namespace regard::cli {
namespace {
volatile std::sig_atomic_t flag = 0;
void on_signal(int) { flag = 1; }
}  // namespace

InterruptGuard::InterruptGuard() {
  flag = 0;
  struct sigaction act = {};
  act.sa_handler = on_signal;
  act.sa_flags = int(SA_RESETHAND);
  sigaction(SIGINT, &act, &before_);
}
InterruptGuard::~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }

bool interrupted() { return flag != 0; }
void check_interrupt() {
  if (interrupted()) throw Interrupted{};
}

}  // namespace regard::cli
