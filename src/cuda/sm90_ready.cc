// cuda_sm90: the Hopper kernels (sm90/params.h) behind a plan.
#include "cuda/cuda.h"
#include "cuda/views.h"
#include "regard/status.h"

namespace regard::cuda {

std::string sm90_refusal(const Plan&, const Tensors& t) {
  if (std::string why = views_refusal(t); !why.empty()) return why;
  return "not built yet";
}

std::unique_ptr<Ready> sm90_ready(const Plan&, const Tensors&) {
  throw Error("cuda_sm90: not built yet");
}

}  // namespace regard::cuda
