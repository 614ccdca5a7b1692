// regard bench: times text problems, beside what the machine can do and what others do, in one run.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "cli/bench_print.h"
#include "cli/bench_run.h"
#include "cli/check_cuda.h"
#include "cli/verbs.h"
#include "core/parallel.h"
#include "cpu/cpu.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

struct Arguments {
  std::vector<std::string> files, problems, groups, peers, numerics;
  std::string folder = "bench/problems";
  std::string python = "build/venv-peers/bin/python", script = "bench/peers/serve.py";
  Rounds rounds{.threads = {1, 2}};
  bool quick = false;
  std::string json, svg;
  std::string device = "cpu", impl;
};

// Groups by name, and "all" of them, in the order in which the page has them.
std::vector<std::string> group_files(const Arguments& a) {
  const std::vector<std::string> known = {"prefill", "decode",     "tiles", "band",
                                          "columns", "estimators", "small"};
  std::vector<std::string> out;
  for (const std::string& g : a.groups) {
    if (g != "all" && std::find(known.begin(), known.end(), g) == known.end())
      throw Error(
          fmt::format("bench: no group '{}'; accepted: all, {}", g, fmt::join(known, ", ")));
    for (const std::string& k : known)
      if (g == "all" || g == k) out.push_back(a.folder + "/" + k + ".txt");
  }
  return out;
}

std::vector<ProblemFile> chosen_problems(const Arguments& a) {
  std::vector<std::string> files = a.files;
  for (const std::string& f : group_files(a)) files.push_back(f);
  std::vector<ProblemFile> out = gather_problems(a.problems, files);
  in_each_numeric(a.numerics, &out);
  if (!a.quick) return out;
  for (ProblemFile& f : out) std::erase_if(f.lines, [](const ProblemLine& l) { return !l.quick; });
  std::erase_if(out, [](const ProblemFile& f) { return f.lines.empty(); });
  return out;
}

BenchMachine describe_machine(const Arguments& a, cpu::Peaks& peaks, Peers* peers) {
  BenchMachine m{cpu_name(), cpu_target(), {}, {}};
  for (int t : a.rounds.threads) m.peaks.push_back(measure_peaks(peaks, t));
  for (const std::string& name : a.peers) {
    peers->push_back(std::make_unique<Peer>(a.python, a.script, name));
    const Peer& p = *peers->back();
    m.peers.emplace_back(name, p.absent().empty() ? p.version() : "absent: " + p.absent());
  }
  return m;
}

void write(const std::string& file, const std::string& text) {
  const std::string temporary = file + ".part";
  std::ofstream out(temporary);
  out << text;
  out.close();
  if (!out || std::rename(temporary.c_str(), file.c_str()) != 0)
    throw Error(fmt::format("bench: cannot write '{}'", file));
}

void bench(const Arguments& a) {
  const std::vector<ProblemFile> files = chosen_problems(a);
  if (a.device == "cuda") {
    std::vector<std::string> lines;
    for (const ProblemFile& f : files)
      for (const ProblemLine& l : f.lines) lines.push_back(l.problem);
    return bench_cuda(lines, a.impl, std::max(a.rounds.least, 7), a.json);
  }
#ifdef REGARD_BENCH_GGML
  if (a.rounds.ggml && has_openmp()) use_team(Team::openmp);  // ggml's, as in the plug-in
#endif
  cpu::Peaks peaks;
  Peers peers;
  const BenchMachine machine = describe_machine(a, peaks, &peers);
  fmt::print("{}", machine_text(machine));
  std::vector<BenchRow> rows;
  const size_t threads = a.rounds.threads.size();
  for (const ProblemFile& file : files) {
    fmt::print("{}", group_head(file));
    for (const auto& series : series_of(file)) {
      const std::vector<BenchRow> some = run_series(file.name, series, a.rounds, peaks, peers);
      for (size_t n = 0; n < some.size(); n += threads)
        fmt::print("{}",
                   rows_text({some.begin() + int64_t(n), some.begin() + int64_t(n + threads)}));
      std::fflush(stdout);
      rows.insert(rows.end(), some.begin(), some.end());
    }
  }
  fmt::print("{}", summary_text(rows));
  if (!a.json.empty()) write(a.json, bench_json(machine, rows).dump(1) + "\n");
  if (!a.svg.empty()) write(a.svg, roofline_svg(machine, rows));
}

}  // namespace

void add_bench(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb =
      app.add_subcommand("bench", "Time text problems, beside the machine's peaks and ggml.");
  verb->footer(
      "Medians of at least 7 rounds after one of warm-up. Within a round the machine's peaks, "
      "regard,\n"
      "ggml and the peers alternate, and every ratio is the median of the rounds' own. FLOPs "
      "count\n"
      "allowed pairs only. bench/README.md says how to read the table.\n"
      "Example: regard bench --group prefill,decode --json bench.json --svg roofline.svg\n"
      "         regard bench --problem \"h8:2 nq512 nk16384 d128 kv=f16 causal\" --threads 1\n"
      "         regard bench --device cuda bench/problems/cuda.txt");
  verb->add_option("files", a->files, "Files with one problem a line");
  verb->add_option("--group", a->groups,
                   "all, or some of prefill, decode, tiles, band, columns, estimators, small")
      ->delimiter(',');
  verb->add_option("--folder", a->folder, "Where the groups' files are");
  verb->add_option("--problem", a->problems, "One problem, as a line of such a file");
  verb->add_option("--numeric", a->numerics,
                   "Arithmetics to run each line in: f32, bf16, int8, int16")
      ->delimiter(',')
      ->check(CLI::IsMember(numerics()));
  verb->add_flag("--quick", a->quick, "Only the lines marked quick");
  verb->add_option("--threads", a->rounds.threads, "Numbers of threads to try")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  verb->add_option("--repeats", a->rounds.least, "Least number of rounds")
      ->check(CLI::Range(1, 100000));
  verb->add_option("--seconds", a->rounds.seconds, "Least time for problems timed together")
      ->check(CLI::Range(0., 3600.));
  verb->add_flag("!--no-ggml", a->rounds.ggml, "Leave ggml's kernel out");
  verb->add_option("--peers", a->peers, "openvino, torch: where a line is marked peers")
      ->delimiter(',');
  verb->add_option("--python", a->python, "The Python that has the peers");
  verb->add_option("--device", a->device, "cpu, or cuda: the GPU's kernels, in a CUDA graph")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  verb->add_option("--impl", a->impl, "With cuda: force one implementation by name");
  verb->add_option("--json", a->json, "Write the table here too");
  verb->add_option("--svg", a->svg, "Draw a roofline here");
  verb->callback([a] { bench(*a); });
}

}  // namespace regard::cli
