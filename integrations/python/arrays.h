// Python's arrays as views, and its values as parameters. Layer: integrations.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <string>
#include <vector>

#include "regard/method.h"
#include "regard/view.h"

namespace regard::python {

namespace nb = nanobind;

// Borrowed memory with its owner. Fewer than four axes get leading axes of 1.
struct Array {
  View view;
  int rank = 0;
  int device_id = 0;
  nb::object owner;

  std::vector<int64_t> shape() const;
};

// From what __array_interface__ tells: any strides, any alignment. Strides in bytes.
Array array_from_address(uint64_t address, const std::string& dtype,
                         const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                         nb::object owner);
// From anything with __dlpack__ in the CPU's or a CUDA device's memory.
Array array_from_dlpack(const std::string& name, nb::object x);

// A contiguous copy with an owner of its own, free of the GIL.
Tensor copy_of(const View& view);

// bool, int, float, str or Array.
std::map<std::string, Value> values_of(const nb::dict& params);

}  // namespace regard::python
