// What `regard bench` prints and writes. Layer: cli.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench_run.h"

namespace regard::cli {

struct BenchMachine {
  std::string cpu, target;  // "AMD EPYC 9B14", "AVX3"
  std::vector<cpu::PeakSummary> peaks;
  std::vector<std::pair<std::string, std::string>> peers;  // name, version or why it is absent
};
std::string cpu_name();
// Why the rows mean little: more threads do not multiply faster, so somebody else has the
// processors.
std::string unrest(const BenchMachine& m);  // empty: nothing seen

std::string machine_text(const BenchMachine& m);
std::string group_head(const ProblemFile& file);
std::string rows_text(const std::vector<BenchRow>& rows);  // of one problem, all its thread counts
// Targets passed and missed, and the worst ratio against ggml.
std::string summary_text(const std::vector<BenchRow>& rows);

nlohmann::ordered_json bench_json(const BenchMachine& m, const std::vector<BenchRow>& rows);
// A roofline: every row of the largest thread count that has GFLOP/s, numbered, with the list of
// what the numbers mean beside it.
std::string roofline_svg(const BenchMachine& m, const std::vector<BenchRow>& rows);

}  // namespace regard::cli
