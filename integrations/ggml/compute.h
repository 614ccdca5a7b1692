// Computing attention nodes: mode, method, threads, and what is counted. Layer: integrations.
#pragma once
#include <map>
#include <mutex>
#include <optional>

#include "control.h"
#include "exec/profile.h"
#include "ggml-backend.h"
#include "host.h"
#include "mask.h"
#include "node.h"
#include "regard/method.h"

struct ggml_cgraph;

namespace regard::ggml {

// One for the process: what the plug-in was asked to do. Safe from any thread.
class Engine : public Control {
 public:
  explicit Engine(const Settings& settings);  // throws Error for a bad value

  void configure(Mode mode, const std::string& method_spec, int threads) override;
  void set_numeric(const std::string& name) override;
  void observe(std::function<void(const Node&)> observer) override;

  struct State {
    Mode mode = Mode::exact;
    std::shared_ptr<const Method> method;  // one of these two in mode method
    std::shared_ptr<const Profile> profile;
    int threads = 0;      // 0: the caller's
    std::string numeric;  // empty: by the problem and the type of K
    std::function<void(const Node&)> observer;
  };
  State state() const;
  bool log_plan() const { return log_plan_; }

 private:
  mutable std::mutex mutex_;
  State state_;
  const int env_threads_;
  const bool log_plan_;
};

// One for each ggml backend, that is, for each llama_context.
class Computer {
 public:
  explicit Computer(Engine& engine) : engine_(engine) {}
  ~Computer();  // prints the counts when the plan is logged
  Computer(const Computer&) = delete;
  Computer& operator=(const Computer&) = delete;

  void set_threads(int threads) { caller_threads_ = threads; }
  // Attention node `i` of `graph`. Throws.
  void compute(ggml_cgraph* graph, int i);

 private:
  void run_ggml(ggml_cgraph* graph, int i, const Engine::State& state);
  void run_regard(const ggml_tensor* op, const Engine::State& state);
  void run_piece(const ggml_tensor* op, const Engine::State& state, const MaskPart& mask,
                 int64_t sequence, int64_t sequences, double mask_seconds);
  void note(const Node& node, const Engine::State& state, const std::string& what);
  int threads(const Engine::State& state) const;

  Engine& engine_;
  int caller_threads_ = 0;
  MaskReader masks_;
  ggml_backend_t cpu_ = nullptr;  // ggml's own kernels, made when first needed
  void (*set_cpu_threads_)(ggml_backend_t, int) = nullptr;
  struct Count {
    int64_t nodes = 0;
    double seconds = 0;
  };
  std::map<std::string, Count> counts_;  // by what ran and why
};

}  // namespace regard::ggml
