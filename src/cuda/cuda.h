// The CUDA implementations and the little of the CUDA runtime that others need. Layer: cuda.
//
// Plain C++: built without CUDA, the same entries answer 'not built' (src/absent).
#pragma once
#include <memory>
#include <string>

#include "plan/ready.h"
#include "regard/plan.h"

namespace regard::cuda {

// Empty when this process can use a GPU; else "not built (REGARD_CUDA=OFF)" or the driver's word.
std::string absence();

// Why an implementation cannot run the plan on these tensors; empty: it can. Pointers are not read.
// `plan` need not be lowered.
std::string sm80_refusal(const Plan& plan, const Tensors& t);
std::string sm90_refusal(const Plan& plan, const Tensors& t);

// Uploads what the lowered plan needs to the device that holds t.q. Allocates and waits. sm90 runs
// a plan of several branches if it takes one of them; those that it leaves run on the baseline.
std::unique_ptr<Ready> sm80_ready(const Plan& plan, const Tensors& t);
std::unique_ptr<Ready> sm90_ready(const Plan& plan, const Tensors& t);

// Memory of the current device, and copies either way (by address) that return when they are done.
std::shared_ptr<void> allocate(int64_t bytes);
void copy(void* to, const void* from, int64_t bytes);
// A contiguous copy on the current device, and a contiguous copy back.
Tensor to_device(const View& host);
Tensor to_host(const View& device);
void synchronize(void* stream);

std::string device_name();  // "NVIDIA H100 80GB HBM3, 132 SMs, sm_90"

// Seconds of one call of `work(stream)` in a CUDA graph that holds `repeats` of them: the median
// over `rounds` replays.
double time_graph(void (*work)(void* context, void* stream), void* context, int repeats,
                  int rounds);

}  // namespace regard::cuda
