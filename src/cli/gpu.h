// Tensors on the current GPU, for the verbs that run there. Layer: cli.
#pragma once
#include "cli/arguments.h"

namespace regard::cli {

// Kernels on a GPU read halves: k's own half type, or q's, or bf16.
DType half_type(const View& q, const View& k);
// f32 in `type`; any other type as it is.
Tensor halved(const Tensor& from, DType type);

void need_gpu(const std::string& device);  // Error that names --device where there is none

// --device: the current GPU ("cuda": the first implementation there that can; or one by name), or
// an implementation on the CPU.
struct DeviceArgument {
  std::string name;
  void add(CLI::App& verb, const char* what);
  bool gpu() const;
  std::string implementation() const;  // RunOptions::impl
};

// A method's inputs where they are attended: as they were loaded, or as halves on the current GPU.
class PlacedInputs {
 public:
  // Error: no GPU here; a type that none there reads.
  PlacedInputs(const LoadedInputs& x, const DeviceArgument& device);
  const Inputs& inputs() const { return placed_.inputs; }
  // On a GPU a plan is made there where the method's stages have kernels, else on the CPU from the
  // same halves: the integers are equal, and *why_on_cpu says why.
  Plan plan(const Method& m, const Ctx& ctx, std::string* why_on_cpu) const;
  Tensor output(DType type, const std::array<int64_t, 4>& size) const;
  Tensor on_host(const Tensor& made) const;  // of output()
  void wait() const;                         // for the GPU

 private:
  bool gpu_;
  LoadedInputs host_, placed_;
};

}  // namespace regard::cli
