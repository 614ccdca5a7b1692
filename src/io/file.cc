#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "regard/status.h"

namespace regard::io {

static_assert(std::endian::native == std::endian::little, "both formats are little endian");

Reader::Reader(const char* operation, const std::string& path)
    : prefix_(fmt::format("{}: {}", operation, path)) {
  // Not blocking: opening a pipe that nobody writes to would wait for ever.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail(std::strerror(errno));
  struct stat st;
  if (::fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd_);
    fail("not a regular file");
  }
  size_ = uint64_t(st.st_size);
}

Reader::~Reader() { ::close(fd_); }

void Reader::read(uint64_t offset, void* dst, uint64_t n) const {
  if (offset > size_ || n > size_ - offset)
    fail(fmt::format("{} bytes expected at {}, the file has {}", n, offset, size_));
  char* p = static_cast<char*>(dst);
  while (n > 0) {
    const ssize_t got = ::pread(fd_, p, std::min<uint64_t>(n, 1 << 30), off_t(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(std::strerror(errno));
    if (got == 0) fail("became shorter while it was read");
    p += got, offset += uint64_t(got), n -= uint64_t(got);
  }
}

void Reader::fail(const std::string& why) const {
  throw Error(printable(fmt::format("{}: {}", prefix_, why)));
}

std::string printable(std::string text) {
  constexpr size_t kLongest = 1000;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  for (char& c : text)
    if (uint8_t(c) < 32 || c == 127) c = '?';
  return text;
}

int64_t item_size(Stored t) {
  constexpr int64_t kSize[] = {8, 4, 2, 2, 4, 8, 1, 1};
  return kSize[int(t)];
}

DType loaded_as(Stored t) {
  constexpr DType kType[] = {DType::f64, DType::f32, DType::f16, DType::bf16,
                             DType::i32, DType::i32, DType::i32, DType::i32};
  return kType[int(t)];
}

std::optional<uint64_t> elements(const std::vector<uint64_t>& shape) {
  uint64_t n = 1;
  for (const uint64_t s : shape)
    if (__builtin_mul_overflow(n, s, &n)) return std::nullopt;
  return n;
}

namespace {

void to_i32(const Reader& file, uint64_t offset, Stored type, int32_t* dst, uint64_t n) {
  constexpr uint64_t kChunk = 1 << 20;  // elements
  std::vector<char> raw(size_t(std::min(n, kChunk) * uint64_t(item_size(type))));
  for (uint64_t i = 0; i < n; i += kChunk) {
    const uint64_t m = std::min(kChunk, n - i);
    const uint64_t item = uint64_t(item_size(type));
    file.read(offset + i * item, raw.data(), m * item);
    for (uint64_t j = 0; j < m; ++j) {
      int64_t x = uint8_t(raw[j]);
      if (type == Stored::i64) std::memcpy(&x, &raw[j * 8], 8);
      if (type == Stored::b8) x = x != 0;
      if (x != int32_t(x)) file.fail(fmt::format("{} does not fit into 32 bits", x));
      dst[i + j] = int32_t(x);
    }
  }
}

}  // namespace

Tensor load_elements(const Reader& file, uint64_t offset, Stored type,
                     const std::vector<uint64_t>& shape, bool column_major) {
  std::array<int64_t, 4> size{1, 1, 1, 1};
  for (size_t i = 0; i < shape.size(); ++i) size[4 - shape.size() + i] = int64_t(shape[i]);
  Tensor t = make_tensor(loaded_as(type), size);
  const uint64_t n = uint64_t(t.view.numel());
  if (item_size(type) == info(t.view.dtype).bytes && type != Stored::i64) {
    file.read(offset, t.view.data, n * uint64_t(item_size(type)));
  } else {
    to_i32(file, offset, type, static_cast<int32_t*>(t.view.data), n);
  }
  if (column_major) {
    int64_t stride = info(t.view.dtype).bytes;
    for (size_t a = 4 - shape.size(); a < 4; ++a) {
      t.view.stride[a] = stride;
      stride *= size[a];
    }
  }
  return t;
}

std::vector<int64_t> trailing_axes(const char* operation, const View& view, int rank) {
  bool ok = rank >= 0 && rank <= 4 && info(view.dtype).block == 1;
  for (int a = 0; ok && a < 4 - rank; ++a) ok = view.size[size_t(a)] == 1;
  if (!ok)
    throw Error(fmt::format("{}: cannot write {} with {} axes", operation, view.shape(), rank));
  return {view.size.end() - rank, view.size.end()};
}

void write_elements(const View& view, const Sink& sink) {
  const size_t item = size_t(info(view.dtype).bytes);
  std::vector<char> row(size_t(view.size[3]) * item);
  for (int64_t a = 0; a < view.size[0]; ++a)
    for (int64_t b = 0; b < view.size[1]; ++b)
      for (int64_t c = 0; c < view.size[2]; ++c) {
        const char* p = view.at(a, b, c);
        for (int64_t d = 0; d < view.size[3]; ++d)
          std::memcpy(&row[size_t(d) * item], p + d * view.stride[3], item);
        sink(row.data(), row.size());
      }
}

namespace {

class Output {
 public:
  Output(const std::string& path, int fd) : path_(path), fd_(fd) {
    if (fd < 0) fail();
    buffer_.reserve(kBuffer);
  }
  ~Output() {
    if (fd_ >= 0) ::close(fd_);
  }
  void write(const char* p, size_t n) {
    if (buffer_.size() + n > kBuffer) flush();
    if (n >= kBuffer) return put(p, n);
    buffer_.append(p, n);
  }
  void close() {
    flush();
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail();
  }

 private:
  static constexpr size_t kBuffer = 1 << 20;
  [[noreturn]] void fail() const {
    throw Error(fmt::format("write: {}: {}", path_, std::strerror(errno)));
  }
  void flush() {
    put(buffer_.data(), buffer_.size());
    buffer_.clear();
  }
  void put(const char* p, size_t n) {
    while (n > 0) {
      const ssize_t done = ::write(fd_, p, n);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail();
      p += done, n -= size_t(done);
    }
  }
  std::string path_, buffer_;
  int fd_;
};

void fill(Output& out, const std::function<void(const Sink&)>& body) {
  body([&](const void* bytes, size_t n) { out.write(static_cast<const char*>(bytes), n); });
  out.close();
}

}  // namespace

void write_file(const std::string& path, const std::function<void(const Sink&)>& body) {
  namespace fs = std::filesystem;
  std::error_code none;
  fs::path real = path;
  if (fs::is_symlink(real, none)) real = fs::weakly_canonical(real, none);
  const fs::file_status status = fs::status(real, none);
  if (fs::is_directory(status)) throw Error(fmt::format("write: {}: is a directory", path));
  if (fs::exists(status) && !fs::is_regular_file(status)) {  // /dev/stdout, a pipe
    Output out(path, ::open(real.c_str(), O_WRONLY | O_CLOEXEC));
    return fill(out, body);
  }
  const std::string temporary = fmt::format("{}.tmp{}", real.string(), ::getpid());
  ::unlink(temporary.c_str());  // of a dead process that had our number
  Output out(path, ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  try {
    fill(out, body);
    if (std::rename(temporary.c_str(), real.c_str()) != 0)
      throw Error(fmt::format("write: {}: {}", path, std::strerror(errno)));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void write_file(const std::string& path, const std::string& bytes) {
  write_file(path, [&](const Sink& sink) { sink(bytes.data(), bytes.size()); });
}

}  // namespace regard::io
