// A GGUF model in this process, with Regard's plug-in at its side. Layer: cli.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/run.h"
#include "control.h"

struct ggml_tensor;
struct llama_model;

namespace regard::cli {

// The plug-in's control. `path` empty: libggml-regard.so beside this program. Loads it once; must
// happen before a model is loaded, or llama.cpp does not see it. Throws Error.
ggml::Control& load_plugin(const std::string& path);

class Model {
 public:
  // Checks the file first; throws Error with one line, llama.cpp's own last error included.
  Model(const std::string& path, bool verbose);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  std::vector<int32_t> tokenize(const std::string& text) const;        // BOS as the model wants
  std::vector<int32_t> tokenize_piece(const std::string& text) const;  // without it
  int64_t train_ctx() const;
  int64_t vocab() const;
  int64_t layers() const;
  int64_t heads() const;
  int64_t kv_heads() const;
  int64_t head_size() const;        // of the larger of K and V, as the file says; at least 1
  std::string description() const;  // "SmolLM2-135M-Instruct.Q4_1 (llama, Q4_1)"
  llama_model* get() const { return model_; }

 private:
  std::string name_;
  llama_model* model_ = nullptr;
};

// One pass of all tokens through a fresh context: the scheduler asks a backend what it supports
// when a context's graphs are built, so a change of mode needs a new one.
struct Pass {
  int64_t ubatch = 512;
  int threads = 1;
  std::string kv = "f16";
  const std::vector<int32_t>* tokens = nullptr;
  const std::vector<int64_t>* positions = nullptr;  // ascending; where logits are computed
  bool warm_up = true;                              // one micro-batch before the clock starts
  std::function<void()> warm;                       // after the warm-up, before the clock
  std::function<void(int64_t done)> progress;       // tokens fed so far
  // Every node of the graph, as llama.cpp's cb_eval has it: asked first, then with its data.
  std::function<bool(const ggml_tensor*, bool ask)> node;
  std::function<void(int64_t i, const float* logits)> scored;  // position i; off the clock
};
struct PassResult {
  double seconds = 0;   // inside llama_decode, all micro-batches
  double peak_mib = 0;  // of the process during this pass, model and bookkeeping included
};
PassResult run_pass(const Model& model, const Pass& pass);  // throws Error, Interrupted

std::string machine();  // "AMD EPYC 9B14, 2 threads, AVX3"

}  // namespace regard::cli
