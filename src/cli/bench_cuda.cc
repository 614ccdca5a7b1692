#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/check_cuda.h"
#include "cli/gpu.h"
#include "cuda/cuda.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

struct Work {
  const Runner& runner;
  const Tensors& t;
  void* workspace;
};

double seconds_of(const Runner& runner, const Tensors& t, int rounds) {
  const std::shared_ptr<void> workspace = cuda::allocate(runner.workspace());
  Work work{runner, t, workspace.get()};
  return cuda::time_graph(
      [](void* context, void* stream) {
        const Work& w = *static_cast<const Work*>(context);
        w.runner.run(w.t, w.workspace, w.runner.workspace(), stream);
      },
      &work, 10, rounds);
}

}  // namespace

void bench_cuda(const std::vector<std::string>& lines, const std::string& impl, int repeats,
                const std::string& json) {
  need_gpu("cuda");
  fmt::print(
      "{}; medians of {} replays of a graph of 10 runs; keys and values below 50 MB stay in "
      "L2\n{:>10} {:>9} {:>8}  {:<10} {}\n",
      cuda::device_name(), repeats, "us", "TFLOP/s", "KV GB/s", "ran on", "problem");
  nlohmann::json rows = nlohmann::json::array();
  for (const std::string& line : lines) {
    const TextProblem x = parse_problem(line);
    const DeviceProblem d(x);
    RunOptions options;
    options.impl = impl;
    try {
      const Runner runner(x.plan, d.t, options);
      const double seconds = seconds_of(runner, d.t, repeats);
      const Problem& p = x.plan.problem;
      const double tflops = cost(x.plan).pairs * 2 * double(p.dk + p.dv) / seconds / 1e12;
      const double gbs = double(d.k.view.numel() + d.v.view.numel()) * 2 / seconds / 1e9;
      fmt::print("{:>10.1f} {:>9.1f} {:>8.0f}  {:<10} {}\n", seconds * 1e6, tflops, gbs,
                 runner.implementation(), line);
      rows.push_back({{"problem", line},
                      {"type", info(d.type).name},
                      {"implementation", runner.implementation()},
                      {"seconds", seconds},
                      {"tflops", tflops},
                      {"kv_gbs", gbs}});
    } catch (const Error& e) {
      fmt::print("{:>10} {:>9} {:>8}  {:<10} {}: {}\n", "-", "-", "-", "-", line, e.what());
      rows.push_back({{"problem", line}, {"refused", e.what()}});
    }
    std::fflush(stdout);
  }
  if (json.empty()) return;
  std::ofstream out(json);
  out << nlohmann::json{{"device", cuda::device_name()}, {"rows", rows}}.dump(1) << '\n';
  out.close();
  if (!out) throw Error(fmt::format("bench: cannot write '{}'", json));
}

}  // namespace regard::cli
