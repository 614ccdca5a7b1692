// Our own threads, asleep between calls. Layer: core.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <mutex>

namespace regard {

// One for the process. A caller works on its own items and never waits for a thread that has not
// begun to help: on a busy machine a call takes as long as the cores that it gets need, and not
// until the last of `threads` threads has had its turn.
class OwnTeam {
 public:
  using Body = std::function<void(int64_t i, int worker)>;
  static OwnTeam& get();
  void run(int64_t n, int threads, const Body& body);

 private:
  struct Call {
    const Body& body;
    const int64_t n;
    const int threads;
    std::atomic<int64_t> next{0};
    int joined = 1;                // the caller is worker 0; under mutex_
    std::atomic<int> working{0};   // helpers at work; changed under mutex_
    std::exception_ptr failure{};  // the first one; under mutex_
  };

  OwnTeam() = default;
  void help();                        // a thread's life
  Call* open_call();                  // one that wants helpers, or null; under mutex_
  void work(Call& call, int worker);  // items until there are none

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  std::list<Call*> calls_;
  int threads_ = 0;
  std::atomic<uint64_t> calls_made_{0};  // what threads watch for a moment before they sleep
};

}  // namespace regard
