// A C entry to the Hopper kernels for ctypes: sm90_check.py and sm90_bench.py.
#include <cstring>

#include "cuda/sm90/params.h"

extern "C" {
// Returns 0; else fills `error` (256 bytes).
int regard_sm90_forward(const regard::cuda::sm90::Params* p, void* stream, char* error) {
  try {
    regard::cuda::sm90::forward(*p, static_cast<cudaStream_t>(stream));
    return 0;
  } catch (const std::exception& e) {
    std::strncpy(error, e.what(), 255);
    error[255] = 0;
    return 1;
  }
}
// Bytes, or 0 where the call would be refused.
size_t regard_sm90_workspace(const regard::cuda::sm90::Params* p) {
  return regard::cuda::sm90::refusal(*p).empty() ? regard::cuda::sm90::workspace(*p) : 0;
}
size_t regard_sm90_params_size() { return sizeof(regard::cuda::sm90::Params); }
}
