// A CUDA runtime whose one device is the host: memory is memory, streams are empty. It takes the
// place of the real one in a program that runs kernels by fibers (kernel.h).
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>

namespace {

std::map<const char*, size_t> allocated;

cudaError_t allocate(void** p, size_t bytes) {
  bytes = (bytes + 511) / 256 * 256;
  *p = std::aligned_alloc(256, bytes);
  std::memset(*p, 0xff, bytes);  // NaN to whoever reads what nobody wrote
  allocated[static_cast<const char*>(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t give_back(void* p) {
  allocated.erase(static_cast<const char*>(p));
  std::free(p);
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes); }
cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t, cudaStream_t) {
  return allocate(p, bytes);
}
cudaError_t cudaFree(void* p) { return give_back(p); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return give_back(p); }
cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
// Few multiprocessors: rows are cut over keys and instances for many rows are reached by small
// problems too. REGARD_HOST_SMS: another number.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  const char* const sms = std::getenv("REGARD_HOST_SMS");
  *p = {};
  p->multiProcessorCount = sms ? std::atoi(sms) : 4, p->major = 9;
  std::strcpy(p->name, "the host");
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  const char* const at = static_cast<const char*>(p);
  const auto next = allocated.upper_bound(at);
  *a = {};
  const bool here =
      next != allocated.begin() && at < std::prev(next)->first + std::prev(next)->second;
  a->type = here ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return *s = {}, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return *e = {}, cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = {}, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "not on the host"; }

// What other kernels of the library ask for where they are linked, and nobody here may call.
#define REGARD_NOT_HERE(name, ...) \
  cudaError_t name(__VA_ARGS__) { return cudaErrorNotSupported; }
REGARD_NOT_HERE(cudaStreamBeginCapture, cudaStream_t, cudaStreamCaptureMode)
REGARD_NOT_HERE(cudaStreamEndCapture, cudaStream_t, cudaGraph_t*)
REGARD_NOT_HERE(cudaGraphInstantiate, cudaGraphExec_t*, cudaGraph_t, unsigned long long)
REGARD_NOT_HERE(cudaGraphLaunch, cudaGraphExec_t, cudaStream_t)
REGARD_NOT_HERE(cudaGraphDestroy, cudaGraph_t)
REGARD_NOT_HERE(cudaGraphExecDestroy, cudaGraphExec_t)
REGARD_NOT_HERE(cudaEventElapsedTime, float*, cudaEvent_t, cudaEvent_t)
REGARD_NOT_HERE(cudaFuncSetAttribute, const void*, cudaFuncAttribute, int)
REGARD_NOT_HERE(cudaLaunchKernelExC, const cudaLaunchConfig_t*, const void*, void**)
REGARD_NOT_HERE(cudaGetDriverEntryPointByVersion, const char*, void**, unsigned, unsigned long long,
                cudaDriverEntryPointQueryResult*)
REGARD_NOT_HERE(__cudaGetKernel, cudaKernel_t*, const void*)
REGARD_NOT_HERE(__cudaLaunchKernel, cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t)
REGARD_NOT_HERE(__cudaPopCallConfiguration, dim3*, dim3*, size_t*, void*)
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, cudaStream_t) { std::abort(); }
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {}

}  // extern "C"
