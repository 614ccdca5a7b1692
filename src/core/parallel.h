// parallel_for: the only place that starts threads. Layer: core.
#pragma once
#include <cstdint>
#include <functional>

namespace regard {

// Calls body(i, worker) once for every i in [0, n); worker in [0, threads). Items are handed out
// one by one in order, so put the longest first. Runs on the calling thread when threads is 1. The
// first exception is rethrown on the caller. Any number of callers at once, from inside a body too.
void parallel_for(int64_t n, int threads, const std::function<void(int64_t i, int worker)>& body);

// Whose threads: our own, which sleep when there is no work; or OpenMP's, for a program whose other
// kernels keep an OpenMP team spinning between two of our calls
// (docs/decisions/2026-11-22-threads.md). For the process; results do not depend on it.
enum class Team { own, openmp };
void use_team(Team team);  // throws Error where this build has no OpenMP
bool has_openmp();

int processors();  // that this process may run on

}  // namespace regard
