// View: someone's memory, seen as a four-dimensional tensor. Layer: core.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace regard {

// The last six are ggml's quantised blocks: 32 elements share one scale (and, in the _1 types, one
// minimum). Only K and V may be quantised.
enum class DType : uint8_t { f64, f32, f16, bf16, i32, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl };

struct DTypeInfo {
  const char* name;
  int64_t block;  // elements a block: 1, or 32 for quantised types
  int64_t bytes;  // bytes a block
};
const DTypeInfo& info(DType t);
DType parse_dtype(const std::string& name);  // throws Error that lists the names

enum class Device : uint8_t { cpu, cuda };

// Sizes are [batch, heads, tokens, channels] (or whatever four axes an operation states); strides
// are in BYTES and may be zero (broadcast) or not ordered. The last axis of a quantised view must
// be whole contiguous blocks; strides of the other axes are free.
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  std::array<int64_t, 4> size{0, 0, 0, 0};
  std::array<int64_t, 4> stride{0, 0, 0, 0};

  explicit operator bool() const { return data != nullptr; }
  int64_t numel() const { return size[0] * size[1] * size[2] * size[3]; }
  char* at(int64_t a, int64_t b, int64_t c) const {
    return static_cast<char*>(data) + a * stride[0] + b * stride[1] + c * stride[2];
  }
  std::string shape() const;  // "f16[1,3,4096,64]"
};

// A view of contiguous memory (row major).
View contiguous(void* data, DType dtype, std::array<int64_t, 4> size);
// Tokens [first, first + count) of axis 2.
View slice_tokens(const View& v, int64_t first, int64_t count);

// Row of `v` (all of axis 3) as numbers. `dst` holds size[3] elements.
void read_row(const View& v, int64_t a, int64_t b, int64_t c, float* dst);
void read_row(const View& v, int64_t a, int64_t b, int64_t c, double* dst);
// Rounds to the view's type (nearest even). Not for quantised views.
void write_row(const View& v, int64_t a, int64_t b, int64_t c, const float* src);
void write_row(const View& v, int64_t a, int64_t b, int64_t c, const double* src);

// A view with an owner: what a Plan holds. A null owner means borrowed memory.
struct Tensor {
  View view;
  std::shared_ptr<const void> owner;
  explicit operator bool() const { return bool(view); }
};
Tensor make_tensor(DType dtype, std::array<int64_t, 4> size);  // zero-filled, 64-byte aligned

}  // namespace regard
