// regard check: the kernels against the reference over text problems, on every instruction set.
#include <fmt/format.h>

#include <algorithm>

#include "cli/arguments.h"
#include "cli/bench_ggml.h"
#include "cli/bench_lines.h"
#include "cli/bench_problem.h"
#include "cli/check_cuda.h"
#include "cli/verbs.h"
#include "cpu/cpu.h"
#include "ref/judge.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

struct Arguments {
  std::vector<std::string> files, problems, targets, numerics;
  int threads = 0;
  bool ggml = false;
  std::string device = "cpu";
};

// ggml's own kernel on the same inputs; what it says is for comparison, not a test.
std::string ggml_error(const TextProblem& x, int threads) {
  std::string why = x.why_not_ggml;
  const std::unique_ptr<GgmlAttention> peer =
      why.empty() ? GgmlAttention::make(x, threads, &why) : nullptr;
  if (!peer) return fmt::format("ggml: {}", why);
  peer->run();
  Out out;
  out.out = peer->out();
  Plan plan = x.plan;
  plan.numeric("f32");
  const ref::Verdict v = ref::judge(plan, x.q.view, x.k.view, x.v.view, out, threads);
  return fmt::format("ggml {:.2e}", v.relative);
}

// A numeric is not there on every instruction set; one that is nowhere here is an error.
bool runs_on(const TextProblem& x, const std::string& target) {
  cpu::force_target(target);
  Out out;
  out.out = x.out.view;
  std::string why;
  for (const Choice& c : explain(x.plan, x.q.view, x.k.view, x.v.view, out))
    if (c.name == "cpu") why = c.refusal;
  if (!why.empty()) fmt::print("skip  {:<6}  {}  {}\n", target, why, x.text);
  return why.empty();
}

// One problem on one target; returns whether it passed.
bool check_one(const TextProblem& x, const std::string& target, int threads,
               const std::string& ggml) {
  cpu::force_target(target);
  RunOptions options;
  options.impl = "cpu";
  options.threads = threads;
  Out out;
  out.out = x.out.view;
  out.lse = x.lse.view;
  attend(x.plan, x.q.view, x.k.view, x.v.view, out, options);
  const ref::Verdict v =
      ref::judge(x.plan, x.q.view, x.k.view, x.v.view, out, threads ? threads : hardware_threads());
  fmt::print("{}  {:<6}  out {:.1e} of {:.1e}  lse {:.1e} of {:.1e}  rms {:.2e}{}  {}\n",
             v.passed() ? "pass" : "FAIL", target, v.error, v.bound, v.lse_error, v.lse_bound,
             v.relative, ggml, x.text);
  if (!v.passed()) fmt::print("      {}\n", v.failure);
  std::fflush(stdout);
  return v.passed();
}

void check(const Arguments& a) {
  std::vector<std::string> lines;
  std::vector<ProblemFile> files = gather_problems(a.problems, a.files);
  in_each_numeric(a.numerics, &files);
  for (const ProblemFile& file : files)
    for (const ProblemLine& line : file.lines) lines.push_back(line.problem);
  if (a.device == "cuda") {
    size_t runs = 0;
    const int bad = check_cuda(lines, a.threads, &runs);
    if (runs == 0)
      throw Error("check: no implementation on this GPU can run any of these problems");
    if (bad > 0) throw Error(fmt::format("check: {} of {} runs failed", bad, runs));
    fmt::print("{} runs passed\n", runs);
    return;
  }
  const std::vector<std::string> targets = a.targets.empty() ? cpu::targets() : a.targets;
  for (const std::string& t : targets) cpu::force_target(t);
  int failed = 0, runs = 0;
  for (const std::string& line : lines) {
    const TextProblem x = parse_problem(line);
    const std::string ggml =
        a.ggml ? "  " + ggml_error(x, a.threads ? a.threads : hardware_threads()) : "";
    for (const std::string& t : targets) {
      if (!runs_on(x, t)) continue;
      failed += !check_one(x, t, a.threads, ggml);
      ++runs;
    }
  }
  cpu::force_target("");
  if (runs == 0) throw Error("check: no instruction set here can run any of these problems");
  if (failed > 0) throw Error(fmt::format("check: {} of {} runs failed", failed, runs));
  fmt::print("{} runs passed\n", runs);
}

}  // namespace

void add_check(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand(
      "check",
      "Run the kernels of the CPU, or a GPU, against the fp64 reference over text problems.");
  verb->footer(
      "Each line prints the error that came nearest to its bound, and the bound: twice the error "
      "of\n"
      "a naive implementation in the same arithmetic plus a few ulps; rms: the relative error of "
      "the\n"
      "whole output.\n"
      "Example: regard check bench/problems/check.txt\n"
      "         regard check --problem \"h8:2 nq64 nk300 d80 kv=q8_0 causal softcap=30\"\n"
      "         regard check --device cuda bench/problems/check.txt bench/problems/cuda.txt");
  verb->add_option("files", a->files, "Files with one problem a line");
  verb->add_option("--problem", a->problems, "One problem, as a line of such a file");
  verb->add_option("--numeric", a->numerics,
                   "Arithmetics to run each line in: f32, bf16, int8, int16")
      ->delimiter(',')
      ->check(CLI::IsMember(numerics()));
  verb->add_option("--target", a->targets, "Instruction sets; all of this machine's by default");
  verb->add_option("--device", a->device, "cpu, or cuda: the GPU's kernels")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  verb->add_flag("--ggml", a->ggml, "Show the error of ggml's own kernel on each problem too");
  add_threads(*verb, &a->threads);
  verb->callback([a] { check(*a); });
}

}  // namespace regard::cli
