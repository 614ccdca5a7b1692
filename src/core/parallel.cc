// OpenMP, so that inside llama.cpp (whose CPU kernels use it too) both share one team of threads
// instead of two teams waiting for each other's cores.
#include "core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>

namespace regard {

void parallel_for(int64_t n, int threads, const std::function<void(int64_t, int)>& body) {
  const int team = int(std::min<int64_t>(threads, n));
  if (team <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
#pragma omp parallel num_threads(team)
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

}  // namespace regard
