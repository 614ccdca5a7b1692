#include "regard/view.h"

#include <fmt/format.h>

#include <cstring>
#include <new>

#include "core/half.h"
#include "core/quant.h"
#include "regard/status.h"

namespace regard {
namespace {

constexpr DTypeInfo kInfo[] = {
    {"f64", 1, 8},    {"f32", 1, 4},    {"f16", 1, 2},      {"bf16", 1, 2},
    {"i32", 1, 4},    {"q8_0", 32, 34}, {"q4_0", 32, 18},   {"q4_1", 32, 20},
    {"q5_0", 32, 22}, {"q5_1", 32, 24}, {"iq4_nl", 32, 18},
};
constexpr int kTypes = int(sizeof(kInfo) / sizeof(kInfo[0]));

// Unaligned load: views may start anywhere.
template <class T>
T load(const char* p) {
  T x;
  std::memcpy(&x, p, sizeof(T));
  return x;
}
template <class T>
void store(char* p, T x) {
  std::memcpy(p, &x, sizeof(T));
}

template <class To, class Read>
void read_strided(const View& v, const char* p, To* dst, Read read) {
  for (int64_t c = 0; c < v.size[3]; ++c) dst[c] = To(read(p + c * v.stride[3]));
}

template <class To>
void read_any(const View& v, int64_t a, int64_t b, int64_t c, To* dst) {
  if (v.device != Device::cpu)
    throw Error(
        fmt::format("read: {} lies in a GPU's memory, where the CPU does not read", v.shape()));
  const char* p = v.at(a, b, c);
  switch (v.dtype) {
    case DType::f64:
      return read_strided(v, p, dst, load<double>);
    case DType::f32:
      return read_strided(v, p, dst, load<float>);
    case DType::i32:
      return read_strided(v, p, dst, load<int32_t>);
    case DType::f16:
      return read_strided(v, p, dst, [](const char* e) { return f16_to_f32(load<uint16_t>(e)); });
    case DType::bf16:
      return read_strided(v, p, dst, [](const char* e) { return bf16_to_f32(load<uint16_t>(e)); });
    default: {
      float block[32];
      for (int64_t i = 0; i < v.size[3]; i += 32, p += info(v.dtype).bytes) {
        decode_block(v.dtype, p, block);
        for (int64_t j = 0; j < 32 && i + j < v.size[3]; ++j) dst[i + j] = To(block[j]);
      }
    }
  }
}

template <class From>
void write_any(const View& v, int64_t a, int64_t b, int64_t c, const From* src) {
  char* p = v.at(a, b, c);
  for (int64_t i = 0; i < v.size[3]; ++i, p += v.stride[3]) {
    switch (v.dtype) {
      case DType::f64:
        store(p, double(src[i]));
        break;
      case DType::f32:
        store(p, float(src[i]));
        break;
      case DType::f16:
        store(p, f32_to_f16(float(src[i])));
        break;
      case DType::bf16:
        store(p, f32_to_bf16(float(src[i])));
        break;
      default:
        throw Error(fmt::format("write: cannot write to {}", v.shape()));
    }
  }
}

}  // namespace

const DTypeInfo& info(DType t) { return kInfo[int(t)]; }

DType parse_dtype(const std::string& name) {
  std::string names;
  for (int t = 0; t < kTypes; ++t) {
    if (name == kInfo[t].name) return DType(t);
    names += fmt::format("{}{}", t ? ", " : "", kInfo[t].name);
  }
  throw Error(fmt::format("dtype: unknown '{}'; accepted: {}", name, names));
}

std::string View::shape() const {
  return fmt::format("{}[{},{},{},{}]", info(dtype).name, size[0], size[1], size[2], size[3]);
}

View contiguous(void* data, DType dtype, std::array<int64_t, 4> size) {
  View v{data, dtype, Device::cpu, size, {}};
  const DTypeInfo& t = info(dtype);
  v.stride[3] = t.block == 1 ? t.bytes : 0;
  v.stride[2] = (size[3] + t.block - 1) / t.block * t.bytes;
  v.stride[1] = v.stride[2] * size[2];
  v.stride[0] = v.stride[1] * size[1];
  return v;
}

View slice_tokens(const View& v, int64_t first, int64_t count) {
  if (first < 0 || count < 0 || first + count > v.size[2])
    throw Error(fmt::format("slice_tokens: [{}, {}) of {}", first, first + count, v.shape()));
  View s = v;
  s.data = static_cast<char*>(v.data) + first * v.stride[2];
  s.size[2] = count;
  return s;
}

void read_row(const View& v, int64_t a, int64_t b, int64_t c, float* dst) {
  read_any(v, a, b, c, dst);
}
void read_row(const View& v, int64_t a, int64_t b, int64_t c, double* dst) {
  read_any(v, a, b, c, dst);
}
void write_row(const View& v, int64_t a, int64_t b, int64_t c, const float* src) {
  write_any(v, a, b, c, src);
}
void write_row(const View& v, int64_t a, int64_t b, int64_t c, const double* src) {
  write_any(v, a, b, c, src);
}

Tensor make_tensor(DType dtype, std::array<int64_t, 4> size) {
  const View shape = contiguous(nullptr, dtype, size);
  const size_t bytes = size_t(shape.stride[0] * size[0]);
  constexpr std::align_val_t kAlign{64};
  void* p = ::operator new(bytes ? bytes : 1, kAlign);
  std::memset(p, 0, bytes);
  Tensor t;
  t.owner = std::shared_ptr<const void>(
      p, [](const void* q) { ::operator delete(const_cast<void*>(q), kAlign); });
  t.view = contiguous(p, dtype, size);
  return t;
}

}  // namespace regard
