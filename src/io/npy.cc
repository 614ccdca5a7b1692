// NumPy's .npy, versions 1 to 3 (numpy.lib.format): magic, version, header length, a Python dict
// literal, data.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

#include "io/file.h"
#include "regard/status.h"

namespace regard::io {
namespace {

struct Header {
  std::string descr;
  bool column_major = false;
  std::vector<uint64_t> shape;
};

// The subset of Python that numpy writes: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3),
// }
class HeaderParser {
 public:
  HeaderParser(const Reader& file, std::string_view text) : file_(file), s_(text) {}

  Header parse() {
    Header h;
    bool seen[3] = {};
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      const int i = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : -1;
      if (i < 0 || seen[i]) bad();
      seen[i] = true;
      if (i == 0) h.descr = string();
      if (i == 1) h.column_major = boolean();
      if (i == 2) h.shape = tuple();
      if (!accept(',') && peek() != '}') bad();
    }
    skip();
    if (!s_.empty() || !seen[0] || !seen[1] || !seen[2]) bad();
    return h;
  }

 private:
  [[noreturn]] void bad() const {
    file_.fail(
        "bad header; expected {'descr': '<f4', 'fortran_order': False, 'shape': (..)} with a plain "
        "type");
  }
  void skip() {
    while (!s_.empty() && (s_[0] == ' ' || s_[0] == '\n')) s_.remove_prefix(1);
  }
  char peek() {
    skip();
    return s_.empty() ? '\0' : s_[0];
  }
  bool accept(char c) {
    if (peek() != c) return false;
    s_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad();
  }
  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') bad();
    s_.remove_prefix(1);
    const size_t end = s_.find(quote);
    if (end == s_.npos) bad();
    std::string out(s_.substr(0, end));
    s_.remove_prefix(end + 1);
    return out;
  }
  bool boolean() {
    skip();
    for (const std::string_view word : {"True", "False"})
      if (s_.starts_with(word)) {
        s_.remove_prefix(word.size());
        return word == "True";
      }
    bad();
  }
  std::vector<uint64_t> tuple() {
    std::vector<uint64_t> out;
    expect('(');
    while (!accept(')')) {
      skip();
      uint64_t x = 0;
      const auto [end, error] = std::from_chars(s_.data(), s_.data() + s_.size(), x);
      if (error != std::errc()) bad();
      s_.remove_prefix(size_t(end - s_.data()));
      out.push_back(x);
      if (out.size() > 64) bad();
      if (!accept(',') && peek() != ')') bad();
    }
    return out;
  }

  const Reader& file_;
  std::string_view s_;
};

struct TypeName {
  const char* descr;
  Stored type;
};
// The first of a type is what save_npy writes.
constexpr TypeName kTypes[] = {{"<f8", Stored::f64},  {"<f4", Stored::f32},  {"<f2", Stored::f16},
                               {"|V2", Stored::bf16}, {"<V2", Stored::bf16}, {"<i4", Stored::i32},
                               {"<i8", Stored::i64},  {"|b1", Stored::b8},   {"|u1", Stored::u8}};

Stored parse_type(const Reader& file, const std::string& descr) {
  for (const TypeName& t : kTypes)
    if (descr == t.descr) return t.type;
  file.fail(fmt::format(
      "type '{}'; accepted: <f8, <f4, <f2, V2 (bf16), <i4, <i8, |b1, |u1, little endian", descr));
}

}  // namespace

Tensor load_npy(const std::string& path) {
  const Reader file("load_npy", path);
  std::array<uint8_t, 12> head{};
  if (file.size() < 10) file.fail(fmt::format("{} bytes: not a .npy file", file.size()));
  file.read(0, head.data(), std::min<uint64_t>(12, file.size()));
  if (std::memcmp(head.data(), "\x93NUMPY", 6) != 0) file.fail("not a .npy file");
  if (head[6] < 1 || head[6] > 3) file.fail(fmt::format("version {}; accepted: 1 to 3", head[6]));
  uint64_t length = head[8] | uint64_t(head[9]) << 8, begin = 10;
  if (head[6] > 1) length |= uint64_t(head[10]) << 16 | uint64_t(head[11]) << 24, begin = 12;
  if (length > kMaxHeader || begin + length > file.size())
    file.fail(fmt::format("header of {} bytes in a file of {}", length, file.size()));
  std::string text(size_t(length), '\0');
  file.read(begin, text.data(), length);
  const Header h = HeaderParser(file, text).parse();
  const Stored type = parse_type(file, h.descr);
  if (h.shape.size() > 4) file.fail(fmt::format("{} axes; accepted: up to 4", h.shape.size()));
  const std::optional<uint64_t> n = elements(h.shape);
  const uint64_t have = file.size() - begin - length;
  if (n && *n == 0) file.fail("empty");
  if (!n || *n > have || *n * uint64_t(item_size(type)) != have)
    file.fail(fmt::format("shape ({}) of {} does not fit its {} bytes of data",
                          fmt::join(h.shape, ", "), h.descr, have));
  return load_elements(file, begin + length, type, h.shape, h.column_major);
}

void save_npy(const std::string& path, const View& view, int rank) {
  const std::vector<int64_t> shape = trailing_axes("save_npy", view, rank);
  std::string descr;
  for (const TypeName& t : kTypes)
    if (descr.empty() && t.type != Stored::i64 && loaded_as(t.type) == view.dtype) descr = t.descr;
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   descr, fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  // Padded so that the data starts at a multiple of 64; fits version 1's 16-bit length.
  header.append(63 - (10 + header.size()) % 64, ' ').push_back('\n');
  std::string head = "\x93NUMPY";
  head += {char(1), char(0), char(header.size() & 255), char(header.size() >> 8)};
  write_file(path, [&](const Sink& sink) {
    sink(head.data(), head.size());
    sink(header.data(), header.size());
    write_elements(view, sink);
  });
}

}  // namespace regard::io
