#include "cli/explain_time.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "cuda/cuda.h"
#include "regard/run.h"

namespace regard::cli {
namespace {

constexpr int kRounds = 3;

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

template <class F>
double seconds(const F& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

Timing time_method(const Method& m, const PlacedInputs& x, int threads,
                   const DeviceArgument& device) {
  const Inputs& in = x.inputs();
  const Problem& p = in.problem;
  const Tensor out = x.output(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensors t{in.q, in.k, in.v, {out.view, {}, {}}, {}};
  const RunOptions options{threads, device.implementation(), false, nullptr};
  const auto run = [&](const Runner& runner) {
    const int64_t bytes = runner.workspace();
    const std::shared_ptr<void> workspace = bytes ? cuda::allocate(bytes) : nullptr;
    return seconds([&] { runner.run(t, workspace.get(), bytes), x.wait(); });
  };
  const Runner exact(make_plan(parse_method("dense"), in, {threads, nullptr}), t, options);
  Plan plan;
  std::string why_on_cpu;
  std::map<std::string, std::vector<double>> stages;
  std::vector<double> planning, attention, exactly;
  for (int round = 0; round < kRounds; ++round) {
    Trace trace;
    std::optional<Runner> runner;
    planning.push_back(seconds([&] {
      plan = x.plan(m, {threads, &trace}, &why_on_cpu);
      runner.emplace(plan, t, options);
      x.wait();
    }));
    for (const auto& [stage, s] : trace.seconds) stages[stage].push_back(s);
    attention.push_back(run(*runner));
    exactly.push_back(run(exact));
  }
  Timing timing{p.nk, median(planning), median(attention), median(exactly), cost(plan).density(),
                {}};
  for (const auto& [stage, s] : stages) timing.stages[stage] = median(s);
  return timing;
}

std::vector<Timing> time_lengths(const Method& m, const InputArguments& input, int threads,
                                 const DeviceArgument& device) {
  std::vector<int64_t> lengths;
  for (int64_t n = input.tokens; lengths.empty() || n >= 1024; n /= 2) lengths.push_back(n);
  std::vector<Timing> out;
  for (auto n = lengths.rbegin(); n != lengths.rend(); ++n) {
    InputArguments at = input;
    at.tokens = *n;
    if (at.queries) at.queries = std::min(at.queries, *n);
    out.push_back(time_method(m, {at.load(true), device}, threads, device));
  }
  return out;
}

int64_t break_even(const std::vector<Timing>& by_length) {
  int64_t from = 0;
  for (const Timing& t : by_length) from = !t.wins() ? 0 : from ? from : t.tokens;
  return from;
}

}  // namespace regard::cli
