// SmolLM2-135M-Instruct and the plug-in in this process, for tests. One program, made when first
// used.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control.h"
#include "ggml-backend.h"
#include "llama.h"
#include "regard/plan.h"
#include "regard/status.h"

namespace regard::ggml {

inline constexpr int kTokens = 1000;  // two micro-batches, the second one not full
inline constexpr int kStep = 4;       // logits of every fourth position
inline constexpr int kLayers = 30;

struct Program {
  llama_model* model = nullptr;
  Control* control = nullptr;
  std::vector<llama_token> tokens;

  Program() {
    llama_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    ggml_backend_reg_t reg = ggml_backend_load(REGARD_PLUGIN);
    if (!reg) throw Error("the plug-in does not load");
    control = static_cast<Control*>(ggml_backend_reg_get_proc_address(reg, "regard_control"));
    const std::string models = REGARD_MODELS;
    model = llama_model_load_from_file((models + "/SmolLM2-135M-Instruct.Q4_1.gguf").c_str(),
                                       llama_model_default_params());
    if (!model) throw Error("no model in " + models + ": run tools/bootstrap.sh");
    std::ifstream in(models + "/debian-reference.txt");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (text.size() < 8 * kTokens) throw Error("no document in " + models);
    text.resize(8 * kTokens);
    tokens.resize(text.size());
    tokens.resize(llama_tokenize(llama_model_get_vocab(model), text.data(), int(text.size()),
                                 tokens.data(), int(tokens.size()), true, false));
    if (tokens.size() < kTokens + 100) throw Error("too few tokens");
  }
};

inline Program& program() {
  static Program p;
  return p;
}

struct Options {
  bool flash = true;
  ggml_type cache = GGML_TYPE_F16;
  int sequences = 1;
  bool unified = false;
  int threads = 2;
};

using Context = std::unique_ptr<llama_context, decltype(&llama_free)>;

inline Context open(const Options& o = {}) {
  llama_context_params p = llama_context_default_params();
  p.n_ctx = 2048 * o.sequences;
  p.n_batch = 2048;
  p.n_ubatch = 512;
  p.n_threads = p.n_threads_batch = o.threads;
  p.n_seq_max = o.sequences;
  p.kv_unified = o.unified;
  p.type_k = p.type_v = o.cache;
  p.flash_attn_type = o.flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  return {llama_init_from_model(program().model, p), llama_free};
}

struct Item {
  llama_token token;
  int position, sequence;
  bool wanted;
};

// One row of logits for each wanted item.
using Logits = std::vector<std::vector<float>>;

inline Logits decode(llama_context* ctx, const std::vector<Item>& items) {
  llama_batch batch = llama_batch_init(int(items.size()), 0, 1);
  for (const Item& x : items) {
    const int n = batch.n_tokens++;
    batch.token[n] = x.token;
    batch.pos[n] = x.position;
    batch.n_seq_id[n] = 1;
    batch.seq_id[n][0] = x.sequence;
    batch.logits[n] = x.wanted;
  }
  const int status = llama_decode(ctx, batch);
  Logits out;
  const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(program().model));
  for (int n = 0; status == 0 && n < batch.n_tokens; ++n)
    if (batch.logits[n]) {
      const float* row = llama_get_logits_ith(ctx, n);
      out.emplace_back(row, row + vocab);
    }
  llama_batch_free(batch);
  EXPECT_EQ(status, 0);
  return out;
}

inline std::vector<Item> tokens(int from, int to, int sequence = 0, int first_token = 0) {
  std::vector<Item> items;
  for (int n = from; n < to; ++n)
    items.push_back({program().tokens[first_token + n], n, sequence, n % kStep == kStep - 1});
  return items;
}

inline Logits prefill(llama_context* ctx, int count = kTokens) {
  return decode(ctx, tokens(0, count));
}

struct Seen {
  std::vector<Node> nodes;  // their plans are gone
  std::vector<double> density;
  std::map<std::string, int> reasons;
};

// Sets the mode and watches until it goes out of scope.
class With {
 public:
  // threads 0: as many as the context has.
  explicit With(Mode mode, const std::string& spec = "", Seen* seen = nullptr, int threads = 2) {
    program().control->configure(mode, spec, threads);
    if (!seen) return;
    program().control->observe([seen](const Node& n) {
      seen->nodes.push_back(n);
      seen->density.push_back(n.plan ? cost(*n.plan).density() : 1);
      seen->nodes.back().inputs = nullptr;
      seen->nodes.back().plan = nullptr;
      ++seen->reasons[n.exact_reason];
    });
  }
  ~With() {
    program().control->observe({});
    program().control->configure(Mode::off, "", 0);
  }
};

}  // namespace regard::ggml
