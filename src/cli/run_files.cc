#include "cli/run_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gguf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "regard/status.h"

namespace regard::cli {
namespace {

std::string temporary(const std::string& path) { return fmt::format("{}.tmp{}", path, getpid()); }

[[noreturn]] void fail(const char* what, const std::string& path, const std::string& why) {
  throw Error(fmt::format("{} '{}': {}", what, path, why));
}

int create_temporary(const char* what, const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) fail(what, path, "is a directory; a file name is needed");
    if (!S_ISREG(st.st_mode))
      fail(what, path, "is not a regular file; one that can be replaced is needed");
  }
  const int fd = open(temporary(path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail(what, path, fmt::format("cannot be written: {}", std::strerror(errno)));
  return fd;
}

struct FileCloser {
  void operator()(FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<FILE, FileCloser>;

File open_for_reading(const char* what, const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) != 0) fail(what, path, std::strerror(errno));
  if (S_ISDIR(st.st_mode)) fail(what, path, "is a directory; a file is needed");
  File f(std::fopen(path.c_str(), "rb"));
  if (!f) fail(what, path, std::strerror(errno));
  return f;
}

// First byte that is not well-formed UTF-8 (RFC 3629, table of section 4), or npos.
size_t bad_utf8(const std::string& s) {
  const auto byte = [&](size_t i) { return i < s.size() ? uint8_t(s[i]) : 0; };
  for (size_t i = 0; i < s.size();) {
    const uint8_t b = byte(i);
    const int more = b < 0x80                ? 0
                     : b >= 0xC2 && b < 0xE0 ? 1
                     : (b & 0xF0) == 0xE0    ? 2
                     : b >= 0xF0 && b < 0xF5 ? 3
                                             : -1;
    if (more < 0) return i;
    for (int j = 1; j <= more; ++j) {
      if ((byte(i + j) & 0xC0) != 0x80) return i;
    }
    const uint8_t c = byte(i + 1);
    const bool overlong = (b == 0xE0 && c < 0xA0) || (b == 0xF0 && c < 0x90);
    const bool outside = (b == 0xED && c >= 0xA0) || (b == 0xF4 && c >= 0x90);
    if (overlong || outside) return i;
    i += size_t(more) + 1;
  }
  return std::string::npos;
}

// The model's number of query heads is 0 or not stated: recurrent architectures.
bool without_attention(const gguf_context* gguf, std::string& arch) {
  const int64_t id = gguf_find_key(gguf, "general.architecture");
  if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING) return false;  // llama.cpp refuses
  arch = gguf_get_val_str(gguf, id);
  const int64_t heads = gguf_find_key(gguf, (arch + ".attention.head_count").c_str());
  if (heads < 0) return true;
  return gguf_get_kv_type(gguf, heads) == GGUF_TYPE_UINT32 && gguf_get_val_u32(gguf, heads) == 0;
}

void quiet_log(ggml_log_level, const char*, void*) {}

}  // namespace

void check_writable(const char* what, const std::string& path) {
  close(create_temporary(what, path));
  unlink(temporary(path).c_str());
}

void write_file(const char* what, const std::string& path, const std::string& content) {
  const int fd = create_temporary(what, path);
  const auto give_up = [&] {
    const std::string why = std::strerror(errno);
    close(fd);
    unlink(temporary(path).c_str());
    fail(what, path, why);
  };
  for (size_t done = 0; done < content.size();) {
    const ssize_t n = write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) give_up();
    done += size_t(n);
  }
  if (fsync(fd) != 0) give_up();
  close(fd);
  if (rename(temporary(path).c_str(), path.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    unlink(temporary(path).c_str());
    fail(what, path, why);
  }
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code none;
  return std::filesystem::equivalent(a, b, none);
}

std::string read_text(const std::string& path) {
  const File f = open_for_reading("text", path);
  std::string text;
  char chunk[1 << 16];
  while (const size_t n = std::fread(chunk, 1, sizeof chunk, f.get())) text.append(chunk, n);
  if (std::ferror(f.get())) fail("text", path, "cannot be read to its end");
  if (text.empty()) fail("text", path, "is empty; UTF-8 text of some thousand words is needed");
  if (text.size() > 1 && uint8_t(text[0]) == 0x1F && uint8_t(text[1]) == 0x8B) {
    fail("text", path, "is gzip data; unpack it first (gzip -d)");
  }
  if (const size_t at = text.find('\0'); at != std::string::npos) {
    fail("text", path, fmt::format("is binary (NUL byte at {}); UTF-8 text is needed", at));
  }
  if (const size_t at = bad_utf8(text); at != std::string::npos) {
    fail("text", path,
         fmt::format("is not UTF-8 (byte {:#04x} at {}); UTF-8 text is needed", uint8_t(text[at]),
                     at));
  }
  return text;
}

void check_gguf(const std::string& path) {
  const uint64_t bytes = [&] {
    const File f = open_for_reading("model", path);
    char magic[4] = {};
    const size_t n = std::fread(magic, 1, 4, f.get());
    if (n != 4 || std::memcmp(magic, "GGUF", 4) != 0) {
      fail("model", path, "is not a GGUF file (its first four bytes are not 'GGUF')");
    }
    return std::filesystem::file_size(path);
  }();
  ggml_log_set(quiet_log, nullptr);
  const std::unique_ptr<gguf_context, void (*)(gguf_context*)> gguf(
      gguf_init_from_file(path.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}), gguf_free);
  if (!gguf) fail("model", path, "has a damaged or truncated GGUF header");
  if (std::string arch; without_attention(gguf.get(), arch))
    fail("model", path,
         fmt::format("has no attention (architecture {}, no attention heads); a decoder-only model "
                     "with softmax attention is needed",
                     arch));
  uint64_t end = 0;
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
    end = std::max<uint64_t>(
        end, gguf_get_tensor_offset(gguf.get(), i) + gguf_get_tensor_size(gguf.get(), i));
  }
  end += gguf_get_data_offset(gguf.get());
  if (bytes < end) {
    fail("model", path, fmt::format("is truncated: {} bytes of {}", bytes, end));
  }
}

}  // namespace regard::cli
