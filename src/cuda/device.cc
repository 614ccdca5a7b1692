#include "cuda/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "cuda/cuda.h"
#include "regard/status.h"

namespace regard::cuda {

void check(cudaError_t status, const char* operation) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Error(fmt::format("cuda: {}: {}", operation, cudaGetErrorString(status)));
}

OnDevice::OnDevice(int device) : device_(device) {
  check(cudaGetDevice(&before_), "find the current device");
  if (device_ != before_) check(cudaSetDevice(device_), "switch devices");
}
OnDevice::~OnDevice() {
  if (device_ != before_) cudaSetDevice(before_);
}

int device_of(const void* data) {
  cudaPointerAttributes a;
  check(cudaPointerGetAttributes(&a, data), "look at a pointer");
  if (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged)
    throw Error("cuda: a view says cuda, but its memory is not a GPU's");
  return a.device;
}

const DeviceInfo& device_info(int device) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<DeviceInfo>> known(64);
  const std::lock_guard lock(mutex);
  std::unique_ptr<DeviceInfo>& info = known.at(size_t(device));
  if (!info) {
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, device), "read the device's properties");
    info =
        std::make_unique<DeviceInfo>(DeviceInfo{p.multiProcessorCount, p.major, p.minor, p.name});
  }
  return *info;
}

namespace {

cudaMemPool_t make_pool(int device) {
  cudaMemPool_t own = nullptr;
  cudaMemPoolProps wanted = {};
  wanted.allocType = cudaMemAllocationTypePinned;
  wanted.location = {cudaMemLocationTypeDevice, device};
  check(cudaMemPoolCreate(&own, &wanted), "make a pool of memory");
  uint64_t keep = uint64_t(1) << 30;
  check(cudaMemPoolSetAttribute(own, cudaMemPoolAttrReleaseThreshold, &keep), "set up a pool");
  return own;
}

// Where uploads go: a stream and a pool of their own, so that they wait for nothing else.
struct Aside {
  cudaStream_t stream = nullptr;
  cudaMemPool_t pool = nullptr;
};
Aside aside(int device) {
  static std::mutex mutex;
  static std::vector<Aside> known(64);
  const std::lock_guard lock(mutex);
  Aside& own = known.at(size_t(device));
  if (!own.pool) {
    check(cudaStreamCreateWithFlags(&own.stream, cudaStreamNonBlocking), "make a stream");
    own.pool = make_pool(device);
  }
  return own;
}

}  // namespace

cudaMemPool_t pool(int device) {
  static std::mutex mutex;
  static std::vector<cudaMemPool_t> known(64, nullptr);
  const std::lock_guard lock(mutex);
  cudaMemPool_t& own = known.at(size_t(device));
  if (!own) own = make_pool(device);
  return own;
}

int64_t Upload::put_bytes(const void* data, int64_t bytes) {
  const size_t at = (host_.size() + 255) / 256 * 256;
  host_.resize(at);
  const char* const from = static_cast<const char*>(data);
  host_.insert(host_.end(), from, from + bytes);
  return int64_t(at);
}

int64_t Upload::put_view(const View& v, int64_t (&stride)[4]) {
  const int64_t item = info(v.dtype).bytes;
  int64_t size[4], total = item;
  for (int a = 3; a >= 0; --a) {
    size[a] = v.stride[size_t(a)] == 0 && a < 3 ? 1 : v.size[size_t(a)];
    stride[a] = size[a] == 1 ? 0 : total;
    total *= size[a];
  }
  std::vector<char> copy(static_cast<size_t>(total));
  char* to = copy.data();
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c)
        for (int64_t d = 0; d < size[3]; ++d, to += item)
          std::memcpy(to, v.at(a, b, c) + d * v.stride[3], size_t(item));
  return put(copy);
}

// Memory of a pool, which costs nothing to map once the pool has it. Given back when the device is
// done with what may read it, as cudaFree does.
void Upload::send() {
  if (host_.empty()) return;
  int device = 0;
  check(cudaGetDevice(&device), "find the current device");
  const Aside own = aside(device);
  void* p = nullptr;
  check(cudaMallocFromPoolAsync(&p, host_.size(), own.pool, own.stream), "allocate device memory");
  memory_ = {p, [device, own](void* x) {
               int before = 0;
               if (cudaGetDevice(&before) != cudaSuccess) return;
               cudaSetDevice(device);
               cudaDeviceSynchronize();
               cudaFreeAsync(x, own.stream);
               cudaSetDevice(before);
             }};
  check(cudaMemcpyAsync(p, host_.data(), host_.size(), cudaMemcpyHostToDevice, own.stream),
        "copy memory");
  check(cudaStreamSynchronize(own.stream), "copy memory");
  host_.clear();
}

void Counters::put(Upload* upload, int64_t count) {
  count_ = (count + 3) / 4 * 4;  // 16 bytes
  at_ = upload->put(std::vector<uint32_t>(kKnown * size_t(count_), 0));
}

uint32_t* Counters::of(const Upload& upload, const void* workspace) const {
  const std::lock_guard lock(mutex_);
  auto found = std::find(known_.begin(), known_.end(), workspace);
  if (found == known_.end()) {
    if (known_.size() == kKnown) return nullptr;
    found = known_.insert(known_.end(), workspace);
  }
  return const_cast<uint32_t*>(upload.at<uint32_t>(at_)) + (found - known_.begin()) * count_;
}

std::string absence() {
  // Asked once: a process without a driver at its start does not get one.
  static const std::string answer = [] {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (status != cudaSuccess) return fmt::format("no GPU here: {}", cudaGetErrorString(status));
    return std::string(count > 0 ? "" : "no GPU here");
  }();
  return answer;
}

void check_run(const Tensors& t, const void* workspace, void* stream, int device) {
  const auto look = [&](const char* name, const void* data, size_t align) {
    if (!data) return;
    if (reinterpret_cast<uintptr_t>(data) % align != 0)
      throw Error(fmt::format("run: {} is not aligned to {} bytes", name, align));
    cudaPointerAttributes a;
    check(cudaPointerGetAttributes(&a, data), "look at a pointer");
    if (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged)
      throw Error(fmt::format("run: {} is not in a GPU's memory", name));
    if (a.type == cudaMemoryTypeDevice && a.device != device)
      throw Error(
          fmt::format("run: {} is on device {}, made ready for device {}", name, a.device, device));
  };
  look("q", t.q.data, 16), look("k", t.k.data, 16), look("v", t.v.data, 16);
  look("out", t.out.out.data, 16), look("lse", t.out.lse.data, 4), look("pages", t.pages.data, 4);
  look("the workspace", workspace, 256);
  cudaStreamCaptureStatus status;
  const cudaError_t e = cudaStreamIsCapturing(cudaStream_t(stream), &status);
  if (e == cudaErrorStreamCaptureImplicit) {
    cudaGetLastError();
    throw Error(
        "run: the null stream while another stream is captured; accepted: the captured stream");
  }
  check(e, "look at the stream");
}

std::shared_ptr<void> allocate(int64_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, size_t(std::max<int64_t>(1, bytes))), "allocate device memory");
  return {p, [](void* x) { cudaFree(x); }};
}

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) check(cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDefault), "copy memory");
}

Tensor to_device(const View& host) {
  const int64_t row = host.size[3] * info(host.dtype).bytes;
  const Tensor packed = make_tensor(host.dtype, host.size);
  for (int64_t a = 0; a < host.size[0]; ++a)
    for (int64_t b = 0; b < host.size[1]; ++b)
      for (int64_t c = 0; c < host.size[2]; ++c)
        std::memcpy(packed.view.at(a, b, c), host.at(a, b, c), size_t(row));
  const int64_t bytes = packed.view.stride[0] * host.size[0];
  const std::shared_ptr<void> memory = allocate(bytes);
  copy(memory.get(), packed.view.data, bytes);
  Tensor t{packed.view, memory};
  t.view.data = memory.get();
  t.view.device = Device::cuda;
  return t;
}

Tensor to_host(const View& device) {
  Tensor t = make_tensor(device.dtype, device.size);
  if (device.stride != t.view.stride)
    throw Error("cuda: only contiguous tensors are copied back, not " + device.shape());
  copy(t.view.data, device.data, t.view.stride[0] * t.view.size[0]);
  return t;
}

void synchronize(void* stream) {
  check(cudaStreamSynchronize(cudaStream_t(stream)), "wait for the stream");
}

std::string device_name() {
  int device = 0;
  check(cudaGetDevice(&device), "find the current device");
  const DeviceInfo& d = device_info(device);
  return fmt::format("{}, {} SMs, sm_{}{}", d.name, d.sms, d.major, d.minor);
}

double time_graph(void (*work)(void*, void*), void* context, int repeats, int rounds) {
  struct Owned {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    cudaEvent_t begin = nullptr, end = nullptr;
    ~Owned() {
      if (ready) cudaGraphExecDestroy(ready);
      if (graph) cudaGraphDestroy(graph);
      if (begin) cudaEventDestroy(begin);
      if (end) cudaEventDestroy(end);
      if (stream) cudaStreamDestroy(stream);
    }
  } own;
  check(cudaStreamCreateWithFlags(&own.stream, cudaStreamNonBlocking), "make a stream");
  check(cudaEventCreate(&own.begin), "make an event");
  check(cudaEventCreate(&own.end), "make an event");
  check(cudaStreamBeginCapture(own.stream, cudaStreamCaptureModeThreadLocal), "capture");
  try {
    for (int n = 0; n < repeats; ++n) work(context, own.stream);
  } catch (...) {
    cudaStreamEndCapture(own.stream, &own.graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(own.stream, &own.graph), "capture");
  check(cudaGraphInstantiate(&own.ready, own.graph, 0), "instantiate the graph");
  std::vector<float> ms;
  for (int n = 0; n < rounds + 2; ++n) {
    check(cudaEventRecord(own.begin, own.stream), "record an event");
    check(cudaGraphLaunch(own.ready, own.stream), "launch the graph");
    check(cudaEventRecord(own.end, own.stream), "record an event");
    check(cudaStreamSynchronize(own.stream), "run the graph");
    float t = 0;
    check(cudaEventElapsedTime(&t, own.begin, own.end), "read the events");
    if (n >= 2) ms.push_back(t);
  }
  std::nth_element(ms.begin(), ms.begin() + ms.size() / 2, ms.end());
  return ms[ms.size() / 2] * 1e-3 / repeats;
}

}  // namespace regard::cuda
