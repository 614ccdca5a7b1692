#include "cli/gpu.h"

#include <fmt/format.h>

#include "cuda/cuda.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

bool half(DType t) { return t == DType::f16 || t == DType::bf16; }

Tensor readable(const Tensor& x, DType type) {
  if (x.view.dtype != DType::f32 && !half(x.view.dtype))
    throw Error(fmt::format("--device cuda: {}; accepted: f32, f16, bf16", x.view.shape()));
  return halved(x, type);
}

}  // namespace

DType half_type(const View& q, const View& k) {
  return half(k.dtype) ? k.dtype : half(q.dtype) ? q.dtype : DType::bf16;
}

Tensor halved(const Tensor& from, DType type) {
  if (from.view.dtype != DType::f32) return from;
  const Tensor to = make_tensor(type, from.view.size);
  std::vector<float> row(static_cast<size_t>(from.view.size[3]));
  for (int64_t a = 0; a < from.view.size[0]; ++a)
    for (int64_t b = 0; b < from.view.size[1]; ++b)
      for (int64_t c = 0; c < from.view.size[2]; ++c) {
        read_row(from.view, a, b, c, row.data());
        write_row(to.view, a, b, c, row.data());
      }
  return to;
}

void need_gpu(const std::string& device) {
  if (const std::string why = cuda::absence(); !why.empty())
    throw Error(fmt::format("--device {}: {}", device, why));
}

void DeviceArgument::add(CLI::App& verb, const char* what) {
  verb.add_option("--device", name,
                  fmt::format("{}: cpu or ref; cuda: the GPU, q, k and v as halves there, or "
                              "cuda_sm90 or cuda_sm80",
                              what));
}

bool DeviceArgument::gpu() const { return name.starts_with("cuda"); }

std::string DeviceArgument::implementation() const { return name == "cuda" ? "" : name; }

PlacedInputs::PlacedInputs(const LoadedInputs& x, const DeviceArgument& device)
    : gpu_(device.gpu()), host_(x), placed_(x) {
  if (!gpu_) return;
  need_gpu(device.name);
  const DType type = half_type(x.q.view, x.k.view);
  for (Tensor LoadedInputs::*t : {&LoadedInputs::q, &LoadedInputs::k, &LoadedInputs::v}) {
    host_.*t = readable(x.*t, type);
    placed_.*t = cuda::to_device((host_.*t).view);
  }
  for (LoadedInputs* each : {&host_, &placed_})
    each->inputs.q = each->q.view, each->inputs.k = each->k.view, each->inputs.v = each->v.view;
}

Plan PlacedInputs::plan(const Method& m, const Ctx& ctx, std::string* why_on_cpu) const {
  try {
    return make_plan(m, placed_.inputs, ctx);
  } catch (const Error& e) {
    if (!gpu_) throw;
    *why_on_cpu = e.what();
    return make_plan(m, host_.inputs, ctx);
  }
}

Tensor PlacedInputs::output(DType type, const std::array<int64_t, 4>& size) const {
  const Tensor t = make_tensor(type, size);
  return gpu_ ? cuda::to_device(t.view) : t;
}

Tensor PlacedInputs::on_host(const Tensor& made) const {
  return gpu_ && made ? cuda::to_host(made.view) : made;
}

void PlacedInputs::wait() const {
  if (gpu_) cuda::synchronize(nullptr);
}

}  // namespace regard::cli
