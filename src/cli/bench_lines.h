// Lines of problem files: a text problem, and what is asked of its time. Layer: cli.
//
//   h9:3 nq4096 nk4096 d64 kv=q8_0 causal | base:kv=f16 rate>=0.85 ggml>=8 quick   # a comment
//
// Right of '|': `base:` words that turn the problem into the one it is compared with; targets;
// flags `quick` (part of --quick), `peers` (timed by OpenVINO and PyTorch too) and `alone` (not by
// ggml either). A comment that starts with '#:' is a note to be printed over the file's table.
#pragma once
#include <string>
#include <vector>

namespace regard::cli {

struct Target {
  std::string measure;  // see bench_run.h
  bool at_most = false;
  double value = 0;
};

struct ProblemLine {
  std::string problem;
  std::string base;  // the problem that it is compared with; empty: none
  std::vector<Target> targets;
  bool quick = false, peers = false, alone = false;
};

struct ProblemFile {
  std::string name;  // without folder and ".txt"
  std::string note;
  std::vector<ProblemLine> lines;
};

// Throws Error that names the file.
ProblemFile read_problem_file(const std::string& path);
ProblemLine parse_line(const std::string& text);

// What check and bench both take: problems given one by one, then those of files. Throws Error
// where there are none.
std::vector<ProblemFile> gather_problems(const std::vector<std::string>& problems,
                                         const std::vector<std::string>& files);

// Every line once for each name, in that arithmetic; no names: as they are.
void in_each_numeric(const std::vector<std::string>& names, std::vector<ProblemFile>* files);

}  // namespace regard::cli
