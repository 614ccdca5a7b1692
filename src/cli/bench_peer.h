// Other libraries as peers of `regard bench`: a Python process each (bench/peers/serve.py), asked
// for one run at a time. Layer: cli.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cli/bench_problem.h"

namespace regard::cli {

class Peer {
 public:
  // Starts `python script name`; absent() says why it is of no use.
  Peer(const std::string& python, const std::string& script, const std::string& name);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& name() const { return name_; }        // "openvino"
  const std::string& version() const { return version_; }  // "2026.4.1"
  const std::string& absent() const { return absent_; }
  const std::vector<std::string>& precisions() const { return precisions_; }  // "f32", "bf16"

  // Makes inputs of the problem's shape; a number that runs it, or -1 and why it cannot.
  int prepare(const TextProblem& x, int threads, const std::string& precision, std::string* why);
  double run(int id);  // seconds of one run
  void forget();       // frees what was prepared

 private:
  std::string ask(const std::string& line);  // empty: the process is gone

  std::string name_, version_, absent_;
  std::vector<std::string> precisions_;
  int to_ = -1, from_ = -1, pid_ = -1;
  std::string rest_;  // read, not yet used
};

using Peers = std::vector<std::unique_ptr<Peer>>;

}  // namespace regard::cli
