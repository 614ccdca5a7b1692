#include "core/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "core/team.h"
#include "regard/status.h"

namespace regard {
namespace {

std::atomic<Team> chosen{Team::own};

#ifdef _OPENMP
void run_openmp(int64_t n, int threads, const OwnTeam::Body& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  // All threads, even where there are fewer items: libgomp ends the threads that a smaller team
  // leaves over, and the next larger one has to start them again.
#pragma omp parallel num_threads(threads)
  {
    const int worker = omp_get_thread_num();
    try {
      for (int64_t i; (i = next.fetch_add(1)) < n;) body(i, worker);
    } catch (...) {
#pragma omp critical(regard_parallel_failure)
      if (!failure) failure = std::current_exception();
      next = n;
    }
  }
  if (failure) std::rethrow_exception(failure);
}
#endif

}  // namespace

bool has_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

void use_team(Team team) {
  if (team == Team::openmp && !has_openmp())
    throw Error("threads: this build has no OpenMP; accepted: our own team");
  chosen = team;
}

int processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

void parallel_for(int64_t n, int threads, const std::function<void(int64_t, int)>& body) {
  if (threads <= 1 || n <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
#ifdef _OPENMP
  // Beyond the processors libgomp does not spin, so there is no team to share and much to wait for.
  if (chosen == Team::openmp && threads <= processors()) return run_openmp(n, threads, body);
#endif
  OwnTeam::get().run(n, int(std::min<int64_t>(threads, n)), body);
}

}  // namespace regard
