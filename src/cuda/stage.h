// One stage on a GPU: its memory, its results' way back, in the order of a stream. Layer: cuda.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "cuda/cuda.h"
#include "cuda/device.h"
#include "cuda/stages/params.h"
#include "plan/on_device.h"
#include "regard/status.h"
#include "stages/estimate.h"

namespace regard::cuda::stages {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline Rows rows_of(const char* stage, const View& v) {
  if (v.device != Device::cuda)
    throw Error(
        fmt::format("{}: {} is on the CPU, q on a GPU; accepted: one device", stage, v.shape()));
  if ((v.dtype != DType::f16 && v.dtype != DType::bf16) || (v.size[3] > 1 && v.stride[3] != 2))
    throw Error(
        fmt::format("{}: {}, channels {} bytes apart; accepted on a GPU: f16 or bf16, side by side",
                    stage, v.shape(), v.stride[3]));
  Rows r;
  r.data = static_cast<const char*>(v.data);
  r.batch = v.stride[0], r.head = v.stride[1], r.token = v.stride[2];
  r.batches = int32_t(v.size[0]), r.heads = int32_t(v.size[1]), r.tokens = int32_t(v.size[2]);
  r.channels = int32_t(v.size[3]), r.bf16 = v.dtype == DType::bf16;
  return r;
}

// Memory of a stage, given back in the order of its stream.
struct Memory {
  void* at = nullptr;
  void* stream = nullptr;
  int device = 0;
  ~Memory() {
    if (!at) return;
    const OnDevice here(device);
    cudaFreeAsync(at, cudaStream_t(stream));
  }
};

template <class T>
std::vector<T> brought(const T* from, int64_t count, void* stream, const char* name) {
  check(cudaPeekAtLastError(), name);
  std::vector<T> out(static_cast<size_t>(count));
  check(cudaMemcpyAsync(out.data(), from, out.size() * sizeof(T), cudaMemcpyDeviceToHost,
                        cudaStream_t(stream)),
        "copy scores");
  check(cudaStreamSynchronize(cudaStream_t(stream)), name);
  return out;
}

class Scores : public DeviceScores {
 public:
  Scores(std::shared_ptr<Memory> memory, int64_t count)
      : memory_(std::move(memory)), count_(count) {}
  std::vector<float> fetch() const override {
    const OnDevice here(memory_->device);
    return brought(data(), count_, memory_->stream, "scores");
  }
  const float* data() const { return static_cast<const float*>(memory_->at); }
  const Memory& memory() const { return *memory_; }

 private:
  std::shared_ptr<Memory> memory_;
  int64_t count_;
};

// One stage's device memory and its results' way back, in the order of a stream.
class Stage {
 public:
  Stage(const char* name, const Inputs& x, void* stream) : Stage(name, x.q, stream) {
    q = rows_of(name, x.q), k = rows_of(name, x.k);
    if (q.bf16 != k.bf16 || cuda::device_of(x.k.data) != device_)
      throw Error(fmt::format("{}: q {} and k {}; accepted: one type, one GPU", name, x.q.shape(),
                              x.k.shape()));
  }
  Stage(const char* name, const View& v, void* stream)
      : name_(name), device_(device_of(v)), here_(device_), stream_(stream) {}
  Stage(const char* name, const Memory& beside)
      : name_(name), device_(beside.device), here_(device_), stream_(beside.stream) {}

  template <class T>
  T* memory(int64_t count) {
    owned_.push_back(take(count * int64_t(sizeof(T))));
    return static_cast<T*>(owned_.back()->at);
  }
  // What is returned after the stage.
  BlockScores scores(int64_t batch, int64_t heads, int64_t rows, int64_t cols, float** out) {
    const int64_t count = batch * heads * rows * cols;
    std::shared_ptr<Memory> memory = take(count * 4);
    *out = static_cast<float*>(memory->at);
    return {batch, heads, rows, cols, {}, std::make_shared<Scores>(std::move(memory), count)};
  }
  // Bits that are returned after the stage, or read by it.
  TileBits bits(int64_t batch, int64_t heads, int64_t rows, int64_t cols, uint64_t** out);
  const uint64_t* bits(const TileBits& from);
  std::shared_ptr<Memory> kept(int64_t bytes) { return take(bytes); }
  void launched() const { check(cudaPeekAtLastError(), name_); }
  template <class T>
  void zero(T* at, int64_t count) {
    check(cudaMemsetAsync(at, 0, size_t(count) * sizeof(T), cudaStream_t(stream_)), "clear memory");
  }
  template <class T>
  const T* upload(const T* from, int64_t count) {
    T* const to = memory<T>(count);
    check(cudaMemcpyAsync(to, from, size_t(count) * sizeof(T), cudaMemcpyHostToDevice,
                          cudaStream_t(stream_)),
          "copy to a stage");
    return to;
  }
  template <class T>
  std::vector<T> fetch(const T* from, int64_t count) {
    return brought(from, count, stream_, name_);
  }
  Levels levels(const Rows& from, int stride) {
    const int64_t heads = int64_t(from.batches) * from.heads;
    Levels to;
    to.padded = int32_t(ceil_div(from.channels, kChunk) * kChunk);
    const int64_t groups = ceil_div(from.tokens, stride);
    to.stride = stride, to.tokens = int32_t(groups * stride);
    to.groups = int32_t(ceil_div(groups, 4) * 4);
    to.x = memory<uint16_t>(heads * to.tokens * to.padded);
    to.scale = memory<float>(heads * stride * to.groups);
    launch_levels(from, to, stream_);
    return to;
  }

  // Multiprocessors of an sm_90; 0 on other cards.
  int hopper_sms() const {
    const DeviceInfo& d = cuda::device_info(device_);
    return d.major == 9 ? d.sms : 0;
  }

  Rows q, k;

 private:
  static int device_of(const View& v) {
    if (const std::string why = cuda::absence(); !why.empty()) throw Error("cuda: " + why);
    return cuda::device_of(v.data);
  }

  std::shared_ptr<Memory> take(int64_t bytes) {
    auto out = std::make_shared<Memory>(Memory{nullptr, stream_, device_});
    check(cudaMallocFromPoolAsync(&out->at, size_t(std::max<int64_t>(1, bytes)), pool(device_),
                                  cudaStream_t(stream_)),
          "allocate memory of a stage");
    return out;
  }

  const char* const name_;
  const int device_;
  const OnDevice here_;
  void* const stream_;
  std::vector<std::shared_ptr<Memory>> owned_;
};

class Bits : public DeviceBits {
 public:
  Bits(std::shared_ptr<Memory> memory, int64_t words) : memory_(std::move(memory)), words_(words) {}
  TileBits combined(const TileBits& a, Op op, const TileBits& b) const override;
  std::shared_ptr<const DeviceList> lowered(const TileBits& bits, int bq, int bk, const Problem& p,
                                            const Branch& b) const override;
  const uint64_t* data() const { return static_cast<const uint64_t*>(memory_->at); }
  const Memory& memory() const { return *memory_; }
  const std::shared_ptr<Memory>& shared() const { return memory_; }

 protected:
  std::vector<uint64_t> fetch() const override {
    const OnDevice here(memory_->device);
    return brought(data(), words_, memory_->stream, "tile bits");
  }

 private:
  std::shared_ptr<Memory> memory_;
  int64_t words_;
};

inline TileBits Stage::bits(int64_t batch, int64_t heads, int64_t rows, int64_t cols,
                            uint64_t** out) {
  const int64_t words = batch * heads * rows * ceil_div(cols, 64);
  std::shared_ptr<Memory> memory = take(words * 8);
  *out = static_cast<uint64_t*>(memory->at);
  return {batch, heads, rows, cols, std::make_shared<Bits>(std::move(memory), words)};
}
inline const uint64_t* Stage::bits(const TileBits& from) {
  if (from.device()) return static_cast<const Bits&>(*from.device()).data();
  return upload(from.word(0, 0, 0), from.batch * from.heads * from.rows * from.words_per_row());
}

}  // namespace regard::cuda::stages
