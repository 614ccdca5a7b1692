// Tensors from and to files: NumPy's .npy and Hugging Face's .safetensors. Layer: io.
//
// A file is believed only after it is checked: sizes, offsets and types are held against the bytes
// that are really there before anything is allocated. Every refusal names the file.
//
// Axes: a tensor of fewer than four axes gets leading axes of 1, so [H, N, D] loads as [1, H, N,
// D]. Types: f64, f32, f16, bf16, i32 stay as they are. i64 (refused where a value does not fit),
// bool and u8 load as i32. A .npy has no bf16; its two-byte void type ('V2', what ml_dtypes writes)
// is it.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "regard/view.h"

namespace regard::io {

// Throws Error: cannot be read, not a .npy, a type or rank not listed above, empty, too short, too
// long. Column-major ("fortran_order") files give a view with such strides.
Tensor load_npy(const std::string& path);

// Any strides. `rank` is the number of trailing axes to write; the axes before it must be 1.
void save_npy(const std::string& path, const View& view, int rank = 4);

struct SafeTensors {
  std::string path;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> names;  // all that the file holds
  std::map<std::string, std::string>
      skipped;  // name -> why it is not in `tensors` ("type F8_E4M3")

  // Throws Error that names what the file does hold.
  const Tensor& at(const std::string& name) const;
};

// `only`: names to load; empty: all. Tensors of a type or rank that Regard cannot hold are skipped,
// with the reason; at() tells it. The format: 8 bytes of header length, a JSON header
// {name: {dtype, shape, data_offsets}}, data without holes (huggingface/safetensors, README).
SafeTensors load_safetensors(const std::string& path, const std::vector<std::string>& only = {});

struct Named {
  std::string name;
  View view;
  int rank = 4;  // as in save_npy
};
void save_safetensors(const std::string& path, const std::vector<Named>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

// By ending: .npy, or .safetensors with one tensor or `#name` after the path.
Tensor load_tensor(const std::string& path);

// Writes to a temporary name beside `path` and renames: readers see the old file or the new one,
// never half of it. A symbolic link keeps pointing where it did. Devices and pipes are written
// directly. `body` calls its argument any number of times; if it throws, nothing changes.
using Sink = std::function<void(const void* bytes, size_t n)>;
void write_file(const std::string& path, const std::function<void(const Sink&)>& body);
void write_file(const std::string& path, const std::string& bytes);

}  // namespace regard::io
