#include "arrays.h"

#include <cstring>

#include "regard/status.h"

namespace regard::python {
namespace {

Array padded(void* data, DType dtype, const std::vector<int64_t>& shape,
             const std::vector<int64_t>& strides, nb::object owner) {
  Array a{{data, dtype, Device::cpu, {1, 1, 1, 1}, {0, 0, 0, 0}},
          int(shape.size()),
          0,
          std::move(owner)};
  const size_t first = 4 - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    a.view.size[first + i] = shape[i];
    a.view.stride[first + i] = strides[i];
  }
  return a;
}

void check_rank(const std::string& name, size_t rank) {
  if (rank > 4) throw Error(name + " has " + std::to_string(rank) + " axes; accepted: up to 4");
}

DType dtype_of(const std::string& name, nb::dlpack::dtype t) {
  using Code = nb::dlpack::dtype_code;
  const auto is = [&](Code code, int bits) {
    return t.code == uint8_t(code) && t.bits == bits && t.lanes == 1;
  };
  if (is(Code::Float, 64)) return DType::f64;
  if (is(Code::Float, 32)) return DType::f32;
  if (is(Code::Float, 16)) return DType::f16;
  if (is(Code::Bfloat, 16)) return DType::bf16;
  if (is(Code::Int, 32)) return DType::i32;
  throw Error(name + " has a type that Regard does not know (DLPack code " +
              std::to_string(t.code) + ", " + std::to_string(t.bits) +
              " bits); accepted: float64, float32, float16, bfloat16");
}

}  // namespace

std::vector<int64_t> Array::shape() const { return {view.size.end() - rank, view.size.end()}; }

Array array_from_address(uint64_t address, const std::string& dtype,
                         const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                         nb::object owner) {
  check_rank("array", shape.size());
  return padded(reinterpret_cast<void*>(address), parse_dtype(dtype), shape, strides,
                std::move(owner));
}

Array array_from_dlpack(const std::string& name, nb::object x) {
  nb::ndarray<nb::ro> a;
  if (!nb::try_cast(x, a)) throw Error(name + " is no array: it offers no DLPack or buffer");
  const bool cuda = a.device_type() == nb::device::cuda::value;
  if (a.device_type() != nb::device::cpu::value && !cuda)
    throw Error(name + " is neither in the CPU's nor in a CUDA device's memory");
  check_rank(name, a.ndim());
  const DType dtype = dtype_of(name, a.dtype());
  std::vector<int64_t> shape, strides;
  for (size_t i = 0; i < a.ndim(); ++i) {
    shape.push_back(int64_t(a.shape(i)));
    strides.push_back(a.stride(i) * info(dtype).bytes);
  }
  void* data = const_cast<void*>(static_cast<const void*>(a.data()));
  Array out = padded(data, dtype, shape, strides, nb::cast(a));
  out.view.device = cuda ? Device::cuda : Device::cpu;
  out.device_id = cuda ? a.device_id() : 0;
  return out;
}

Tensor copy_of(const View& view) {
  if (view.device != Device::cpu) throw Error("parameters are tensors in the CPU's memory");
  const size_t item = size_t(info(view.dtype).bytes);
  Tensor t = make_tensor(view.dtype, view.size);
  for (int64_t a = 0; a < view.size[0]; ++a)
    for (int64_t b = 0; b < view.size[1]; ++b)
      for (int64_t c = 0; c < view.size[2]; ++c)
        for (int64_t d = 0; d < view.size[3]; ++d)
          std::memcpy(t.view.at(a, b, c) + size_t(d) * item, view.at(a, b, c) + d * view.stride[3],
                      item);
  return t;
}

std::map<std::string, Value> values_of(const nb::dict& params) {
  std::map<std::string, Value> out;
  for (const auto& [key, value] : params) {
    const std::string name = nb::cast<std::string>(key);
    if (nb::isinstance<nb::bool_>(value)) {
      out[name] = nb::cast<bool>(value);
    } else if (nb::isinstance<nb::int_>(value)) {
      int64_t x = 0;
      if (!nb::try_cast(value, x)) throw Error(name + " does not fit into 64 bits");
      out[name] = x;
    } else if (nb::isinstance<nb::float_>(value)) {
      out[name] = nb::cast<double>(value);
    } else if (nb::isinstance<nb::str>(value)) {
      out[name] = nb::cast<std::string>(value);
    } else {
      out[name] = copy_of(nb::cast<const Array&>(value).view);
    }
  }
  return out;
}

}  // namespace regard::python
