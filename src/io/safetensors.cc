// Hugging Face's .safetensors: little-endian u64 header length, JSON header, data without holes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "io/file.h"
#include "regard/status.h"

namespace regard::io {
namespace {

using nlohmann::json;

struct Entry {
  std::string name, type;
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;
};

// JSON that is no header is refused while it is read, before it can grow to gigabytes: three levels
// are all there is, arrays hold shapes and offsets, and no name comes twice.
json parse_header(const Reader& file, const std::string& text) {
  std::set<std::string> names;
  int64_t values = 0;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      values = 0;
      if (depth > 2) file.fail("header nested too deep");
    }
    if (event == json::parse_event_t::value && depth == 3 && ++values > 64)
      file.fail("header with a list of more than 64 numbers");
    if (event == json::parse_event_t::key && depth == 1 &&
        !names.insert(parsed.get<std::string>()).second)
      file.fail(fmt::format("tensor '{}' twice", parsed.get<std::string>()));
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::exception& e) {
    file.fail("header is not JSON");
  }
}

Entry parse_entry(const Reader& file, const std::string& name, const json& j) {
  const auto bad = [&] {
    file.fail(fmt::format("tensor '{}': expected {{dtype, shape, data_offsets}}", name));
  };
  if (!j.is_object() || j.size() != 3 || !j.contains("dtype") || !j.contains("shape") ||
      !j.contains("data_offsets"))
    bad();
  const json &type = j["dtype"], &shape = j["shape"], &offsets = j["data_offsets"];
  if (!type.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2) bad();
  for (const json* list : {&shape, &offsets})
    for (const json& x : *list)
      if (!x.is_number_unsigned()) bad();
  return {name, type, shape.get<std::vector<uint64_t>>(), offsets[0], offsets[1]};
}

struct TypeName {
  const char* name;
  Stored type;
};
constexpr TypeName kTypes[] = {{"F64", Stored::f64},   {"F32", Stored::f32}, {"F16", Stored::f16},
                               {"BF16", Stored::bf16}, {"I32", Stored::i32}, {"I64", Stored::i64},
                               {"BOOL", Stored::b8},   {"U8", Stored::u8}};

// Why Regard cannot hold it, or nothing.
std::string skip_reason(const Entry& e, Stored* type) {
  const auto* t = std::find_if(std::begin(kTypes), std::end(kTypes),
                               [&](const TypeName& n) { return e.type == n.name; });
  if (t == std::end(kTypes))
    return fmt::format("type {}; accepted: F64, F32, F16, BF16, I32, I64, BOOL, U8", e.type);
  *type = t->type;
  if (e.shape.size() > 4) return fmt::format("{} axes; accepted: up to 4", e.shape.size());
  if (e.begin == e.end) return "empty";
  return "";
}

// In the order of the data, each begins where the last ended, and the last ends with the file.
void check_layout(const Reader& file, std::vector<Entry>& entries, uint64_t bytes) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const Entry& e : entries) {
    if (e.begin != at || e.end < e.begin || e.end > bytes)
      file.fail(fmt::format("tensor '{}' at bytes {} to {}; expected from {}, at most to {}",
                            e.name, e.begin, e.end, at, bytes));
    at = e.end;
  }
  if (at != bytes) file.fail(fmt::format("{} bytes of data, its tensors have {}", bytes, at));
}

void check_size(const Reader& file, const Entry& e, Stored type) {
  const std::optional<uint64_t> n = elements(e.shape);
  const uint64_t bytes = e.end - e.begin;
  if (!n || *n > bytes || *n * uint64_t(item_size(type)) != bytes)
    file.fail(fmt::format("tensor '{}': shape [{}] of {} does not fit its {} bytes", e.name,
                          fmt::join(e.shape, ", "), e.type, bytes));
}

void read_metadata(const Reader& file, const json& j, std::map<std::string, std::string>& out) {
  if (!j.is_object()) file.fail("__metadata__ is not a table of strings");
  for (const auto& [key, value] : j.items()) {
    if (!value.is_string()) file.fail("__metadata__ is not a table of strings");
    out[key] = value;
  }
}

}  // namespace

SafeTensors load_safetensors(const std::string& path, const std::vector<std::string>& only) {
  const Reader file("load_safetensors", path);
  uint64_t length = 0;
  if (file.size() < 8) file.fail(fmt::format("{} bytes: not a safetensors file", file.size()));
  file.read(0, &length, 8);
  if (length > kMaxHeader || length > file.size() - 8)
    file.fail(
        fmt::format("not a safetensors file, or cut short: header of {} bytes in a file of {}",
                    length, file.size()));
  std::string text(size_t(length), '\0');
  file.read(8, text.data(), length);
  if (text.empty() || text[0] != '{') file.fail("not a safetensors file: header is not JSON");
  const json header = parse_header(file, text);

  SafeTensors out{path, {}, {}, {}, {}};
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      read_metadata(file, value, out.metadata);
    } else {
      entries.push_back(parse_entry(file, name, value));
      out.names.push_back(name);
    }
  }
  check_layout(file, entries, file.size() - 8 - length);
  for (const Entry& e : entries) {
    if (!only.empty() && std::find(only.begin(), only.end(), e.name) == only.end()) continue;
    Stored type = Stored::f32;
    const std::string reason = skip_reason(e, &type);
    if (!reason.empty()) {
      out.skipped[e.name] = reason;
      continue;
    }
    check_size(file, e, type);
    out.tensors[e.name] = load_elements(file, 8 + length + e.begin, type, e.shape, false);
  }
  return out;
}

const Tensor& SafeTensors::at(const std::string& name) const {
  const auto found = tensors.find(name);
  if (found != tensors.end()) return found->second;
  const auto why = skipped.find(name);
  if (why != skipped.end())
    throw Error(
        printable(fmt::format("load_safetensors: {}: tensor '{}': {}", path, name, why->second)));
  throw Error(
      printable(fmt::format("load_safetensors: {}: no tensor '{}'; it holds {}", path, name,
                            names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")))));
}

void save_safetensors(const std::string& path, const std::vector<Named>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const Named& t : tensors) {
    if (header.contains(t.name) || t.name == "__metadata__")
      throw Error(fmt::format("save_safetensors: tensor '{}' twice", t.name));
    const std::vector<int64_t> shape = trailing_axes("save_safetensors", t.view, t.rank);
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& n) {
      return loaded_as(n.type) == t.view.dtype;
    });
    const uint64_t bytes = uint64_t(t.view.numel() * info(t.view.dtype).bytes);
    header[t.name] = {{"dtype", type->name}, {"shape", shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text = "{}";
  try {
    if (!header.is_null()) text = header.dump();
  } catch (const json::exception&) {
    throw Error(fmt::format("save_safetensors: {}: a name or metadata is not UTF-8", path));
  }
  text.append((8 - text.size() % 8) % 8, ' ');  // data at a multiple of 8
  const uint64_t length = text.size();
  write_file(path, [&](const Sink& sink) {
    sink(&length, 8);
    sink(text.data(), text.size());
    for (const Named& t : tensors) write_elements(t.view, sink);
  });
}

Tensor load_tensor(const std::string& path) {
  const size_t hash = path.rfind('#');
  const std::string file = path.substr(0, hash);
  if (file.ends_with(".npy") && hash == path.npos) return load_npy(file);
  if (!file.ends_with(".safetensors"))
    throw Error(
        fmt::format("load: {}: accepted: FILE.npy, FILE.safetensors, FILE.safetensors#NAME", path));
  if (hash != path.npos) {
    const std::string name = path.substr(hash + 1);
    return load_safetensors(file, {name}).at(name);
  }
  const SafeTensors all = load_safetensors(file);
  if (all.tensors.size() == 1) return all.tensors.begin()->second;
  throw Error(fmt::format("load: {}: holds {} tensors; say which with {}#NAME", path,
                          all.tensors.size(), path));
}

}  // namespace regard::io
