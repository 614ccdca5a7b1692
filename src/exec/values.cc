#include "exec/values.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "io/io.h"

namespace regard {
namespace {

template <class... F>
struct Visitor : F... {
  using F::operator()...;
};
template <class... F>
Visitor(F...) -> Visitor<F...>;

// The shorter of 1e+12 and 1000000000000 that reads back as the same number.
std::string number(double x) {
  const std::string brief = fmt::format("{:g}", x), full = fmt::format("{}", x);
  double back = 0;
  std::from_chars(brief.data(), brief.data() + brief.size(), back);
  return back == x && brief.size() < full.size() ? brief : full;
}

std::string accepted(const Param& p) {
  const std::string type = p.type();
  if (type == "bool") return "true or false";
  if (type == "int" || type == "float")
    return fmt::format("{} from {} to {}", type == "int" ? "a whole number" : "a number",
                       number(p.min), number(p.max));
  if (type == "tensor") return "@file.npy or @file.safetensors#name";
  return p.choices.empty() ? "text" : fmt::format("{}", fmt::join(p.choices, ", "));
}

[[noreturn]] void refuse(const std::string& method, const Param& p, const std::string& got) {
  throw Error(fmt::format("method {}: {}={}; accepted: {}", method, p.name, got, accepted(p)));
}

bool parse_number(std::string_view text, double* out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

bool whole_number(double x, int64_t* out) {
  if (!(std::abs(x) < 0x1p63) || x != std::floor(x)) return false;
  *out = int64_t(x);
  return true;
}

Value checked_int(const std::string& method, const Param& p, int64_t x) {
  if (double(x) < p.min || double(x) > p.max) refuse(method, p, fmt::format("{}", x));
  return x;
}

Value checked_float(const std::string& method, const Param& p, double x) {
  if (!(x >= p.min && x <= p.max)) refuse(method, p, number(x));  // NaN is in no range
  return x;
}

Value tensor_from_text(const std::string& method, const Param& p, const std::string& text) {
  if (text.size() < 2 || text[0] != '@') refuse(method, p, text);
  return io::load_tensor(text.substr(1));
}

}  // namespace

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

Value value_from_text(const std::string& method, const Param& p, const std::string& text) {
  const std::string type = p.type();
  if (type == "string") return checked_value(method, p, text);
  if (type == "tensor") return tensor_from_text(method, p, text);
  if (type == "bool") {
    if (text == "true" || text == "on" || text == "1") return true;
    if (text == "false" || text == "off" || text == "0") return false;
    refuse(method, p, text);
  }
  if (type == "int") {
    int64_t whole = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
    if (error == std::errc() && end == text.data() + text.size())
      return checked_int(method, p, whole);
  }
  double x = 0;
  if (!parse_number(text, &x)) refuse(method, p, text.empty() ? "(nothing)" : text);
  return checked_value(method, p, x);
}

Value checked_value(const std::string& method, const Param& p, const Value& value) {
  const std::string type = p.type(), text = text_of(value);
  if (const auto* x = std::get_if<int64_t>(&value)) {
    if (type == "int") return checked_int(method, p, *x);
    if (type == "float") return checked_float(method, p, double(*x));
  } else if (const auto* d = std::get_if<double>(&value)) {
    int64_t whole = 0;
    if (type == "float") return checked_float(method, p, *d);
    if (type == "int" && whole_number(*d, &whole)) return checked_int(method, p, whole);
  } else if (const auto* s = std::get_if<std::string>(&value)) {
    if (type == "tensor") return tensor_from_text(method, p, *s);
    if (type == "string") {
      for (const std::string& word : p.choices)
        if (word == *s) return value;
      if (p.choices.empty()) return value;
    }
  } else if (const auto* t = std::get_if<Tensor>(&value)) {
    if (type == "tensor" && *t) return value;
  } else if (type == "bool") {
    return value;
  }
  refuse(method, p, text);
}

std::string text_of(const Value& value) {
  return std::visit(
      Visitor{[](bool x) -> std::string { return x ? "true" : "false"; },
              [](int64_t x) { return fmt::format("{}", x); }, [](double x) { return number(x); },
              [](const std::string& x) { return x; },
              [](const Tensor& x) {
                return x ? fmt::format("<{}>", x.view.shape()) : std::string("none");
              }},
      value);
}

const char* Param::type() const {
  return std::visit(
      Visitor{[](bool) { return "bool"; }, [](int64_t) { return "int"; },
              [](double) { return "float"; }, [](const std::string&) { return "string"; },
              [](const Tensor&) { return "tensor"; }},
      value);
}

}  // namespace regard
