#include "compute.h"

#include <fmt/format.h>

#include <chrono>

#include "ggml-impl.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::ggml {
namespace {

// Methods for prefill judge a strip of queries by its blocks; with fewer queries than one block
// there is nothing to judge, and exact attention is cheap.
constexpr int64_t kPrefillQueries = 64;
constexpr int kMaxThreads = 1024;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Empty if the method's assumptions hold, else why the node runs exactly.
std::string exact_reason(const Engine::State& state, const Piece& piece, const MaskPart& mask,
                         int64_t all_sequences, int layer) {
  if (all_sequences > 1) return "several sequences";
  if (mask.numeric) return "mask with a bias in it";
  switch (mask.shape) {
    case MaskPart::Shape::open:
      return "not causal";
    case MaskPart::Shape::window:
      return "sliding window";
    case MaskPart::Shape::general:
      return "cells not of one sequence in order";
    case MaskPart::Shape::causal:
      break;
  }
  const int64_t nq = piece.inputs.problem.nq;
  const std::string phase = state.profile ? "prefill" : state.method->record->phase;
  if (phase == "prefill" && nq < kPrefillQueries)
    return fmt::format("fewer than {} queries", kPrefillQueries);
  if (phase == "decode" && nq > 1) return "more than one query";
  return state.profile ? refusal(*state.profile, layer, piece.inputs)
                       : refusal(*state.method, piece.inputs);
}

// "@FILE" is a profile, anything else a method.
void parse(Mode mode, const std::string& spec, Engine::State* state) {
  state->method = nullptr;
  state->profile = nullptr;
  if (mode != Mode::method) return;
  if (!spec.empty() && spec[0] == '@')
    state->profile = std::make_shared<const Profile>(load_profile(spec.substr(1)));
  else
    state->method = std::make_shared<const Method>(parse_method(spec));
}

std::string spec_of(const Engine::State& state) {
  return state.profile ? "profile " + state.profile->path : state.method->spec();
}

const char* shape_name(MaskPart::Shape s) {
  switch (s) {
    case MaskPart::Shape::open:
      return "open";
    case MaskPart::Shape::causal:
      return "causal";
    case MaskPart::Shape::window:
      return "window";
    case MaskPart::Shape::general:
      return "general mask";
  }
  return "";
}

}  // namespace

Engine::Engine(const Settings& settings)
    : env_threads_(settings.threads), log_plan_(settings.log_plan) {
  state_.threads = env_threads_;
  try {
    set_numeric(settings.numeric);
  } catch (const Error& e) {
    throw Error(fmt::format("REGARD_NUMERIC='{}': {}", settings.numeric, e.what()));
  }
  if (settings.method.empty()) return;
  try {
    parse(Mode::method, settings.method, &state_);
  } catch (const std::exception& e) {
    throw Error(settings.method[0] == '@'
                    ? fmt::format("REGARD_PROFILE: {}", e.what())
                    : fmt::format("REGARD_METHOD='{}': {}", settings.method, e.what()));
  }
  state_.mode = Mode::method;
}

void Engine::configure(Mode mode, const std::string& method_spec, int threads) {
  if (threads < 0 || threads > kMaxThreads)
    throw Error(
        fmt::format("threads must be 0 (the caller's) or 1 to {}, got {}", kMaxThreads, threads));
  State parsed;
  parse(mode, method_spec, &parsed);
  const std::lock_guard lock(mutex_);
  state_.mode = mode;
  state_.method = std::move(parsed.method);
  state_.profile = std::move(parsed.profile);
  state_.threads = threads ? threads : env_threads_;
}

void Engine::set_numeric(const std::string& name) {
  if (!name.empty())
    if (const std::string why = numeric_refusal(name); !why.empty()) throw Error(why);
  const std::lock_guard lock(mutex_);
  state_.numeric = name;
}

void Engine::observe(std::function<void(const Node&)> observer) {
  const std::lock_guard lock(mutex_);
  state_.observer = std::move(observer);
}

Engine::State Engine::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Computer::~Computer() {
  ggml_backend_free(cpu_);
  if (!engine_.log_plan()) return;
  for (const auto& [what, count] : counts_)
    say(fmt::format("{} nodes, {:.3f} s: {}", count.nodes, count.seconds, what));
}

int Computer::threads(const Engine::State& state) const {
  if (state.threads > 0) return state.threads;
  return caller_threads_ > 0 ? caller_threads_ : hardware_threads();
}

void Computer::compute(ggml_cgraph* graph, int i) {
  const Engine::State state = engine_.state();
  // A graph built before the mode was `off` still names this backend: ggml's kernel takes the node.
  if (state.mode == Mode::ggml || state.mode == Mode::off) return run_ggml(graph, i, state);
  run_regard(graph->nodes[i], state);
}

void Computer::run_ggml(ggml_cgraph* graph, int i, const Engine::State& state) {
  const auto begin = Clock::now();
  if (!cpu_) {
    // Through the registry: the program's own CPU backend, whichever library it lives in.
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!device || !(cpu_ = ggml_backend_dev_init(device, nullptr)))
      throw Error("mode ggml: this program has no CPU backend");
    set_cpu_threads_ =
        reinterpret_cast<void (*)(ggml_backend_t, int)>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"));
  }
  if (set_cpu_threads_) set_cpu_threads_(cpu_, threads(state));
  ggml_cgraph one = *graph;  // the node alone, with the graph's tables of uses
  one.size = 0;
  one.n_leafs = 0;
  one.n_nodes = 1;
  one.nodes = graph->nodes + i;
  one.uid = 0;
  if (const ggml_status s = ggml_backend_graph_compute(cpu_, &one); s != GGML_STATUS_SUCCESS)
    throw Error(fmt::format("mode ggml: {}", ggml_status_to_string(s)));
  const ggml_tensor* op = graph->nodes[i];
  Node node;
  node.layer = layer_of(op);
  node.nq = op->src[0]->ne[1];
  node.nk = op->src[1]->ne[1];
  node.offset = node.nk - node.nq;
  node.seconds = since(begin);
  note(node, state, "ggml's own kernel");
}

void Computer::run_regard(const ggml_tensor* op, const Engine::State& state) {
  const auto begin = Clock::now();
  const int64_t sequences = op->src[0]->ne[3];
  const auto reading =
      masks_.read(op->src[3], op->src[0]->ne[1], op->src[1]->ne[1], threads(state));
  const double mask_seconds = since(begin);
  if (reading->parts.size() == 1)
    return run_piece(op, state, reading->parts[0], 0, sequences, mask_seconds);
  for (int64_t s = 0; s < sequences; ++s)
    run_piece(op, state, reading->of(s), s, 1, s == 0 ? mask_seconds : 0);
}

void Computer::run_piece(const ggml_tensor* op, const Engine::State& state, const MaskPart& mask,
                         int64_t sequence, int64_t sequences, double mask_seconds) {
  const auto begin = Clock::now();
  Piece piece = make_piece(op, mask, sequence, sequences);
  piece.inputs.numeric = state.numeric.empty()
                             ? default_numeric(piece.inputs.problem, piece.inputs.k.dtype)
                             : state.numeric;
  const Inputs& x = piece.inputs;
  Trace trace;
  trace.seconds["mask"] = mask_seconds;
  const Ctx ctx{threads(state), &trace};
  Node node;
  Plan plan;
  std::string what = "exact";
  if (state.mode == Mode::method) {
    node.exact_reason = exact_reason(state, piece, mask, op->src[0]->ne[3], layer_of(op));
    what =
        node.exact_reason.empty() ? spec_of(state) : fmt::format("exact ({})", node.exact_reason);
  }
  if (state.mode == Mode::method && node.exact_reason.empty())
    plan = state.profile ? make_plan(*state.profile, layer_of(op), x, ctx)
                         : make_plan(*state.method, x, ctx);
  else
    plan = exact_plan(x, mask);
  plan.lower(ctx.threads);
  node.plan_seconds = mask_seconds + since(begin);
  RunOptions options;
  options.threads = ctx.threads;
  options.trace = &trace;
  Out out;
  out.out = piece.out;
  attend(plan, x.q, x.k, x.v, out, options);
  node.seconds = mask_seconds + since(begin);
  node.layer = layer_of(op);
  node.inputs = &x;
  node.plan = &plan;
  node.trace = &trace;
  node.nq = x.problem.nq;
  node.nk = x.problem.nk;
  node.offset = x.problem.offset;
  what += fmt::format(", {}{}, on {}", shape_name(mask.shape), mask.numeric ? " with bias" : "",
                      trace.chosen);
  for (const auto& [why, calls] : trace.fallbacks) what += fmt::format(", because {}", why);
  note(node, state, what);
}

void Computer::note(const Node& node, const Engine::State& state, const std::string& what) {
  if (engine_.log_plan()) {
    Count& count = counts_[what];
    if (count.nodes++ == 0)
      say(fmt::format("layer {}: {} queries at {} over {} keys: {}{}", node.layer, node.nq,
                      node.offset, node.nk, what,
                      node.plan ? fmt::format("\n{}", describe(*node.plan)) : ""));
    count.seconds += node.seconds;
  }
  if (state.mode != Mode::off && state.observer) state.observer(node);
}

}  // namespace regard::ggml
