#include "cli/bench_lines.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "regard/status.h"

namespace regard::cli {
namespace {

std::string trimmed(const std::string& s) {
  const size_t first = s.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

std::string key_of(const std::string& word) { return word.substr(0, word.find('=')); }

// `problem` with one word exchanged for another with the same key, or added.
std::string exchanged(const std::string& problem, const std::string& word) {
  std::istringstream in(problem);
  std::string out;
  bool found = false;
  for (std::string w; in >> w;) {
    const bool same = key_of(w) == key_of(word);
    found |= same;
    out += (out.empty() ? "" : " ") + (same ? word : w);
  }
  return found ? out : out + " " + word;
}

// The words that are another problem's defaults need not be written.
std::string without(const std::string& problem, const std::string& word) {
  std::istringstream in(problem);
  std::string out;
  for (std::string w; in >> w;)
    if (w != word) out += (out.empty() ? "" : " ") + w;
  return out;
}

Target parse_target(const std::string& word, size_t at) {
  try {
    size_t used = 0;
    const Target t{word.substr(0, at), word[at] == '<', std::stod(word.substr(at + 2), &used)};
    if (used == word.size() - at - 2) return t;
  } catch (const std::exception&) {
  }
  throw Error(fmt::format("target '{}' has no number", word));
}

}  // namespace

ProblemLine parse_line(const std::string& text) {
  ProblemLine line;
  const size_t bar = text.find('|');
  line.problem = trimmed(text.substr(0, bar));
  if (bar == std::string::npos) return line;
  std::istringstream in(text.substr(bar + 1));
  for (std::string word; in >> word;) {
    const size_t at = std::min(word.find(">="), word.find("<="));
    if (word == "quick") {
      line.quick = true;
    } else if (word == "peers") {
      line.peers = true;
    } else if (word == "alone") {
      line.alone = true;
    } else if (word.starts_with("base:")) {
      line.base = exchanged(line.base.empty() ? line.problem : line.base, word.substr(5));
    } else if (at != std::string::npos) {
      line.targets.push_back(parse_target(word, at));
    } else {
      throw Error(
          fmt::format("'{}' in \"{}\"; accepted: base:WORD MEASURE>=X MEASURE<=X quick peers alone",
                      word, text));
    }
  }
  // No numeric, no method, all pairs: so a base may say.
  for (const char* otherwise : {"cover=all", "method=none", "numeric=default"})
    line.base = without(line.base, otherwise);
  return line;
}

ProblemFile read_problem_file(const std::string& path) {
  ProblemFile file;
  file.name = std::filesystem::path(path).stem();
  std::ifstream in(path);
  if (!in) throw Error(fmt::format("cannot read the problems in '{}': {}", path, strerror(errno)));
  for (std::string text; std::getline(in, text);) {
    if (text.starts_with("#:"))
      file.note += (file.note.empty() ? "" : "\n") + trimmed(text.substr(2));
    text = trimmed(text.substr(0, text.find('#')));
    if (text.empty()) continue;
    try {
      file.lines.push_back(parse_line(text));
    } catch (const Error& e) {
      throw Error(fmt::format("{}: {}", path, e.what()));
    }
  }
  return file;
}

std::vector<ProblemFile> gather_problems(const std::vector<std::string>& problems,
                                         const std::vector<std::string>& files) {
  std::vector<ProblemFile> out;
  if (!problems.empty()) {
    out.push_back({"given", "", {}});
    for (const std::string& p : problems) out.back().lines.push_back(parse_line(p));
  }
  for (const std::string& f : files) out.push_back(read_problem_file(f));
  size_t lines = 0;
  for (const ProblemFile& f : out) lines += f.lines.size();
  if (lines == 0) throw Error("no problems: give files with one problem a line, or --problem TEXT");
  return out;
}

void in_each_numeric(const std::vector<std::string>& names, std::vector<ProblemFile>* files) {
  if (names.empty()) return;
  for (ProblemFile& f : *files) {
    std::vector<ProblemLine> lines;
    for (const ProblemLine& line : f.lines)
      for (const std::string& name : names) {
        lines.push_back(line);
        lines.back().problem = exchanged(line.problem, "numeric=" + name);
      }
    f.lines = std::move(lines);
  }
}

}  // namespace regard::cli
