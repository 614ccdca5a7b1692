// Ready: a plan that one implementation has made ready to run again and again. Layer: plan.
#pragma once
#include <cstdint>

#include "regard/tensors.h"

namespace regard {

class Ready {
 public:
  virtual ~Ready() = default;
  virtual int64_t workspace() const = 0;  // bytes; 0: none needed
  // Neither allocates device memory nor waits for it. `t` has the sizes, types and strides that
  // this was made for; only pointers may differ.
  virtual void run(const Tensors& t, void* workspace, int64_t bytes, void* stream) const = 0;
};

}  // namespace regard
