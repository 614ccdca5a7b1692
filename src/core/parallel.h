// parallel_for: the only place that starts threads. Layer: core.
#pragma once
#include <cstdint>
#include <functional>

namespace regard {

// Calls body(i, worker) once for every i in [0, n); worker in [0, threads). Items are handed out
// one by one in order, so put the longest first. Runs on the calling thread when threads is 1. The
// first exception is rethrown on the caller.
void parallel_for(int64_t n, int threads, const std::function<void(int64_t i, int worker)>& body);

}  // namespace regard
