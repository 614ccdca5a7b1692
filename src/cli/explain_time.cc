#include "cli/explain_time.h"

#include <algorithm>
#include <chrono>

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

Timing time_method(const Method& m, const LoadedInputs& x, int threads, const std::string& device) {
  const Problem& p = x.inputs.problem;
  const Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const RunOptions options{threads, device, false, nullptr};
  const Plan exact = make_plan(parse_method("dense"), x.inputs, {threads, nullptr});
  Plan plan;
  std::map<std::string, std::vector<double>> stages;
  std::vector<double> planning, attention, exactly;
  const auto run = [&](const Plan& of) {
    return seconds([&] {
      attend(of, x.inputs.q, x.inputs.k, x.inputs.v, {out.view, {}, {}}, options);
    });
  };
  for (int round = 0; round < kRounds; ++round) {
    Trace trace;
    planning.push_back(seconds([&] { plan = make_plan(m, x.inputs, {threads, &trace}); }));
    for (const auto& [stage, s] : trace.seconds) stages[stage].push_back(s);
    attention.push_back(run(plan));
    exactly.push_back(run(exact));
  }
  Timing t{p.nk, median(planning), median(attention), median(exactly), cost(plan).density(), {}};
  for (const auto& [stage, s] : stages) t.stages[stage] = median(s);
  return t;
}

std::vector<Timing> time_lengths(const Method& m, const InputArguments& input, int threads,
                                 const std::string& device) {
  std::vector<int64_t> lengths;
  for (int64_t n = input.tokens; lengths.empty() || n >= 1024; n /= 2) lengths.push_back(n);
  std::vector<Timing> out;
  for (auto n = lengths.rbegin(); n != lengths.rend(); ++n) {
    InputArguments at = input;
    at.tokens = *n;
    if (at.queries) at.queries = std::min(at.queries, *n);
    out.push_back(time_method(m, at.load(true), threads, device));
  }
  return out;
}

int64_t break_even(const std::vector<Timing>& by_length) {
  int64_t from = 0;
  for (const Timing& t : by_length) from = !t.wins() ? 0 : from ? from : t.tokens;
  return from;
}

}  // namespace regard::cli
