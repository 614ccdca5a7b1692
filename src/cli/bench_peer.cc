#include "cli/bench_peer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace regard::cli {
namespace {

using nlohmann::json;

// Read and written ends of a pipe that a child does not inherit by accident.
struct Pipe {
  int end[2] = {-1, -1};
  Pipe() {
    if (pipe2(end, O_CLOEXEC) != 0) end[0] = end[1] = -1;
  }
};

}  // namespace

Peer::Peer(const std::string& python, const std::string& script, const std::string& name)
    : name_(name) {
  if (access(python.c_str(), X_OK) != 0) {
    absent_ = fmt::format("no {} (make bench makes it)", python);
    return;
  }
  signal(SIGPIPE, SIG_IGN);
  Pipe in, out;
  pid_ = fork();
  if (pid_ == 0) {
    dup2(in.end[0], 0);
    dup2(out.end[1], 1);
    execl(python.c_str(), python.c_str(), script.c_str(), name.c_str(), nullptr);
    _exit(127);
  }
  close(in.end[0]);
  close(out.end[1]);
  to_ = in.end[1], from_ = out.end[0];
  const json hello = json::parse(ask(""), nullptr, false);
  if (!hello.is_object() || hello.contains("error")) {
    absent_ = hello.is_object() ? hello["error"].get<std::string>() : script + " does not answer";
    return;
  }
  version_ = hello.at("version");
  precisions_ = hello.at("precisions").get<std::vector<std::string>>();
}

Peer::~Peer() {
  if (pid_ <= 0) return;
  close(to_);  // the end of its input ends it
  close(from_);
  waitpid(pid_, nullptr, 0);
}

std::string Peer::ask(const std::string& line) {
  if (!line.empty()) {
    const std::string text = line + "\n";
    if (write(to_, text.data(), text.size()) != ssize_t(text.size())) return "";
  }
  for (char buffer[4096];;) {
    const size_t end = rest_.find('\n');
    if (end != std::string::npos) {
      const std::string out = rest_.substr(0, end);
      rest_.erase(0, end + 1);
      return out;
    }
    const ssize_t n = read(from_, buffer, sizeof buffer);
    if (n <= 0) return "";
    rest_.append(buffer, size_t(n));
  }
}

int Peer::prepare(const TextProblem& x, int threads, const std::string& precision,
                  std::string* why) {
  const Problem& p = x.plan.problem;
  const Branch& b = x.plan.branches.at(0);
  const bool plain = x.plan.branches.size() == 1 && b.cover.kind == CoverKind::all &&
                     b.rule.window.unlimited() && !b.rule.mask && b.score.softcap == 0 &&
                     b.score.alibi.empty() && !b.score.bias && !b.score.key_bias &&
                     b.norm.kind == NormKind::softmax && b.source.kind == SourceKind::raw;
  if (!plain) return *why = "only all pairs, with a plain softmax", -1;
  // One query at the end of the cache sees every key, rule or not.
  const bool causal = b.rule.causal && p.nq > 1;
  if (causal && p.nq != p.nk) return *why = "its causal rule is for as many queries as keys", -1;
  const json request{{"do", "prepare"},  {"batch", p.batch},   {"heads", p.heads},
                     {"kv", p.kv_heads}, {"nq", p.nq},         {"nk", p.nk},
                     {"dk", p.dk},       {"dv", p.dv},         {"scale", p.scale},
                     {"causal", causal}, {"threads", threads}, {"precision", precision}};
  const json answer = json::parse(ask(request.dump()), nullptr, false);
  if (!answer.is_object()) return *why = name_ + " is gone", -1;
  if (answer.contains("error")) return *why = answer["error"].get<std::string>(), -1;
  return answer.at("id");
}

double Peer::run(int id) {
  // Teams of threads spin for a few milliseconds after their last work, ours as well as theirs: let
  // them come to rest before the other one is timed.
  constexpr int kRest = 20'000;
  usleep(kRest);
  const json answer = json::parse(ask(json{{"do", "run"}, {"id", id}}.dump()), nullptr, false);
  usleep(kRest);
  return answer.is_object() ? answer.value("seconds", 0.0) : 0.0;
}

void Peer::forget() {
  if (absent_.empty()) ask(json{{"do", "forget"}}.dump());
}

}  // namespace regard::cli
