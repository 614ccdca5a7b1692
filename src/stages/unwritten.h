// A vector's allocator that leaves what is not given unwritten. Layer: stages.
#pragma once
#include <memory>
#include <utility>

namespace regard {

// Leaves numbers as they are where none are given: resize() does not write, so the threads that
// make them do.
template <class T>
struct Unwritten : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = Unwritten<U>;
  };
  template <class U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <class U, class... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
};

}  // namespace regard
