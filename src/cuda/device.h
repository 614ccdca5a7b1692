// The CUDA runtime behind errors and owners. Layer: cuda.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "regard/tensors.h"

namespace regard::cuda {

// Throws Error with the operation and the runtime's words, and clears the runtime's error.
void check(cudaError_t status, const char* operation);

// Makes a device current for a scope.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0, device_ = 0;
};

// The device that holds `data`. Throws Error for memory that is not a GPU's.
int device_of(const void* data);

// Memory in the order of streams, kept between calls: what planning works in.
cudaMemPool_t pool(int device);

// Before a run of what was made ready on `device`: pointers of that device's memory, aligned; a
// stream that can take work. Throws Error; leaves no error behind in the runtime.
void check_run(const Tensors& t, const void* workspace, void* stream, int device);

struct DeviceInfo {
  int sms = 0, major = 0, minor = 0;
  std::string name;
};
const DeviceInfo& device_info(int device);

// Host arrays gathered into one block of device memory. put() returns where the array will lie,
// an offset that at() turns into an address after send().
class Upload {
 public:
  template <class T>
  int64_t put(const std::vector<T>& x) {
    return put_bytes(x.data(), int64_t(x.size() * sizeof(T)));
  }
  int64_t put_bytes(const void* data, int64_t bytes);
  // `view` with rows close together, broadcast axes (stride 0) kept single. Strides of the copy, 0
  // along single axes, go to `stride`.
  int64_t put_view(const View& view, int64_t (&stride)[4]);
  void send();  // allocates, copies, waits
  template <class T>
  const T* at(int64_t offset) const {
    return reinterpret_cast<const T*>(static_cast<const char*>(memory_.get()) + offset);
  }

 private:
  std::vector<char> host_;
  std::shared_ptr<void> memory_;
};

// Counters that a run finds at zero and leaves at zero. A workspace serves one run at a time, so
// the first workspaces of a plan have counters of the plan's own, cleared once.
class Counters {
 public:
  void put(Upload* upload, int64_t count);  // 32-bit counters a run
  // Null: a workspace too many, whose run clears counters of its own.
  uint32_t* of(const Upload& upload, const void* workspace) const;

 private:
  static constexpr size_t kKnown = 16;
  int64_t at_ = 0, count_ = 0;
  mutable std::mutex mutex_;
  mutable std::vector<const void*> known_;
};

}  // namespace regard::cuda
