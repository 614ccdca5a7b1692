#include "core/team.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#include "core/parallel.h"

namespace regard {
namespace {

// A call often follows the last one at once (branches, layers, decode steps): a thread that watches
// for it saves a wake-up of 5 to 50 us. Short, so that two busy processes hardly rob each other.
constexpr auto kWatch = std::chrono::microseconds(200);

// More threads than processors only take turns. Where races are looked for, turns are welcome.
int most_threads() {
#ifdef __SANITIZE_THREAD__
  return 4096;
#else
  static const int most = processors();
  return most;
#endif
}

// Until `ready` or the time is up.
template <class F>
void watch(const F& ready) {
  const auto end = std::chrono::steady_clock::now() + kWatch;
  while (!ready() && std::chrono::steady_clock::now() < end) {
    for (int n = 0; n < 16; ++n) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  }
}

}  // namespace

// Never destroyed: its threads sleep in it until the process ends.
OwnTeam& OwnTeam::get() {
  static OwnTeam* team = new OwnTeam;
  return *team;
}

OwnTeam::Call* OwnTeam::open_call() {
  for (Call* c : calls_)
    if (c->joined < c->threads && c->next.load(std::memory_order_relaxed) < c->n) return c;
  return nullptr;
}

void OwnTeam::work(Call& call, int worker) {
  try {
    for (int64_t i; (i = call.next.fetch_add(1)) < call.n;) call.body(i, worker);
  } catch (...) {
    call.next = call.n;
    const std::lock_guard lock(mutex_);
    if (!call.failure) call.failure = std::current_exception();
  }
}

void OwnTeam::help() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Call* call = open_call();
    if (!call) {
      const uint64_t seen = calls_made_;
      lock.unlock();
      watch([&] { return calls_made_ != seen; });
      lock.lock();
      wanted_.wait(lock, [&] { return (call = open_call()) != nullptr; });
    }
    const int worker = call->joined++;
    ++call->working;
    lock.unlock();
    work(*call, worker);
    lock.lock();
    if (--call->working == 0) done_.notify_all();
  }
}

void OwnTeam::run(int64_t n, int threads, const Body& body) {
  threads = std::min(threads, most_threads());
  Call call{body, n, threads};
  std::unique_lock lock(mutex_);
  try {
    for (; threads_ < threads - 1; ++threads_) std::thread([this] { help(); }).detach();
  } catch (const std::system_error&) {
    // The system gives no more threads: those that there are, or the caller alone, do the work.
  }
  const auto place = calls_.insert(calls_.end(), &call);
  ++calls_made_;
  lock.unlock();
  for (int t = 1; t < threads; ++t) wanted_.notify_one();
  work(call, 0);
  lock.lock();
  calls_.erase(place);  // nobody joins any more
  if (call.working > 0) {
    lock.unlock();
    watch([&] { return call.working == 0; });
    lock.lock();
    done_.wait(lock, [&] { return call.working == 0; });
  }
  lock.unlock();
  if (call.failure) std::rethrow_exception(call.failure);
}

}  // namespace regard
