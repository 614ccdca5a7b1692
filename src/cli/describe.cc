// regard describe NAME: one method's record.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/verbs.h"
#include "exec/record_json.h"
#include "regard/method.h"

namespace regard::cli {
namespace {

struct Arguments {
  std::string name;
  bool json = false;
};

// `text` in lines of at most 96 columns, all but the first indented by `indent`.
std::string wrapped(const std::string& text, size_t indent) {
  std::string out;
  size_t column = indent;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (column + (end - begin) > 96 && column > indent) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (begin > 0) {
      out += ' ', ++column;
    }
    out.append(text, begin, end - begin);
    column += end - begin;
    begin = end + 1;
  }
  return out;
}

void field(const char* name, const std::string& text) {
  if (!text.empty()) fmt::print("{:<9} {}\n", name, wrapped(text, 10));
}

std::string value_text(const Param& p) {
  if (const auto* x = std::get_if<bool>(&p.value)) return *x ? "true" : "false";
  if (const auto* x = std::get_if<int64_t>(&p.value)) return fmt::format("{}", *x);
  if (const auto* x = std::get_if<double>(&p.value)) return fmt::format("{}", *x);
  if (const auto* x = std::get_if<std::string>(&p.value)) return "'" + *x + "'";
  return "none";
}

std::string range_text(const Param& p) {
  const bool number =
      std::holds_alternative<int64_t>(p.value) || std::holds_alternative<double>(p.value);
  if (number) return fmt::format(", {} to {}", p.min, p.max);
  if (!p.choices.empty()) return fmt::format(", one of {}", fmt::join(p.choices, ", "));
  return "";
}

void describe(const Arguments& a) {
  const Record& r = find_method(a.name);
  if (a.json) {
    fmt::print("{}\n", record_json(r, 2));
    return;
  }
  fmt::print("{}: {}\n", r.name, r.title);
  field("paper", r.paper);
  field("family", fmt::format("{}; phase: {}", r.family, r.phase));
  field("what", r.summary);
  field("when", r.when);
  field("cost", r.cost);
  field("differs", r.differs);
  field("needs", fmt::format("{}", fmt::join(r.needs, ", ")));
  field("exact at", r.twin);
  for (const Param& p : r.params)
    fmt::print(
        "  {:<16} {}\n", p.name,
        wrapped(fmt::format("{} = {}{}: {}", p.type(), value_text(p), range_text(p), p.doc), 19));
}

}  // namespace

void add_describe(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("describe", "Tell what a method does, and its parameters");
  auto a = std::make_shared<Arguments>();
  verb->add_option("NAME", a->name, "a method of `regard list`")->required();
  verb->add_flag("--json", a->json, "the record as JSON");
  verb->footer("Example:\n  regard describe xattention");
  verb->callback([a] { describe(*a); });
}

}  // namespace regard::cli
