#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {

#define REGARD_SM80(name, ...)      \
  Instance instance_##name##_f16(); \
  Instance instance_##name##_bf16();
#include "cuda/sm80/instances.def"
#undef REGARD_SM80

const std::vector<Instance>& instances() {
  static const std::vector<Instance> all = {
#define REGARD_SM80(name, ...) instance_##name##_f16(), instance_##name##_bf16(),
#include "cuda/sm80/instances.def"
#undef REGARD_SM80
  };
  return all;
}

}  // namespace regard::cuda::sm80
