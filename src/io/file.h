// What the formats share: checked reading, stored types. Layer: io.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/io.h"
#include "regard/view.h"

namespace regard::io {

constexpr uint64_t kMaxHeader = 100'000'000;  // the bound that safetensors itself sets

// A regular file, open for reading.
class Reader {
 public:
  Reader(const char* operation, const std::string& path);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  uint64_t size() const { return size_; }
  void read(uint64_t offset, void* dst, uint64_t n) const;  // Error if the bytes are not there
  [[noreturn]] void fail(const std::string& why) const;     // "load_npy: x.npy: why"

 private:
  std::string prefix_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// On one line and not endless, whatever names a file holds.
std::string printable(std::string text);

enum class Stored : uint8_t { f64, f32, f16, bf16, i32, i64, b8, u8 };
int64_t item_size(Stored t);
DType loaded_as(Stored t);

// Elements of `shape`, or nothing if the product overflows.
std::optional<uint64_t> elements(const std::vector<uint64_t>& shape);

// `shape` has 1 to 4 axes or none (a scalar), is not empty, and its bytes were checked to lie in
// the file at `offset`.
Tensor load_elements(const Reader& file, uint64_t offset, Stored type,
                     const std::vector<uint64_t>& shape, bool column_major);

// The last `rank` axes; Error where an axis before them is not 1.
std::vector<int64_t> trailing_axes(const char* operation, const View& view, int rank);
void write_elements(const View& view, const Sink& sink);

}  // namespace regard::io
