#include "cli/run_model.h"

#include <fmt/format.h>
#include <ggml-backend.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "cli/run_files.h"
#include "cli/run_interrupt.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

// llama.cpp's log: silent, but its last error is kept for our one line.
struct Log {
  bool verbose = false;
  std::string line, last_error;
} llama_log;

void on_log(ggml_log_level level, const char* text, void*) {
  if (llama_log.verbose) std::fputs(text, stderr);
  if (level != GGML_LOG_LEVEL_CONT) llama_log.line.clear();
  llama_log.line += text;
  while (!llama_log.line.empty() && llama_log.line.back() == '\n') llama_log.line.pop_back();
  if (level == GGML_LOG_LEVEL_ERROR) llama_log.last_error = llama_log.line;
}

std::string last_error() {
  return llama_log.last_error.empty() ? "no reason given" : llama_log.last_error;
}

std::string beside_program(const char* name) {
  return std::filesystem::read_symlink("/proc/self/exe").replace_filename(name).string();
}

bool on_load_progress(float, void*) { return !interrupted(); }
bool on_abort(void*) { return interrupted(); }

ggml_type kv_type(const std::string& name) {
  for (const ggml_type t :
       {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
        GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL}) {
    if (name == ggml_type_name(t)) return t;
  }
  throw Error(
      fmt::format("--kv '{}'; accepted: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl", name));
}

// Why the model cannot be run here, or empty.
std::string unsupported(const llama_model* m) {
  if (llama_model_is_recurrent(m)) return "is recurrent: it has no attention";
  if (llama_model_has_encoder(m) || !llama_model_has_decoder(m))
    return "is not a decoder-only model";
  if (llama_model_is_diffusion(m)) return "is a diffusion model: its attention is not causal";
  if (llama_vocab_type(llama_model_get_vocab(m)) == LLAMA_VOCAB_TYPE_NONE)
    return "has no vocabulary";
  if (llama_vocab_n_tokens(llama_model_get_vocab(m)) <= 0) return "has no vocabulary";
  return "";
}

// Largest number of scored positions in one micro-batch: the output buffer llama.cpp reserves.
uint32_t most_outputs(const Pass& p) {
  uint32_t most = 1, now = 0;
  int64_t strip = -1;
  for (const int64_t at : *p.positions) {
    now = at / p.ubatch == strip ? now + 1 : 1;
    strip = at / p.ubatch;
    most = std::max(most, now);
  }
  return most;
}

class Context {
 public:
  Context(const Model& model, const Pass& p) {
    llama_context_params c = llama_context_default_params();
    c.n_ctx = uint32_t((p.tokens->size() + 255) / 256 * 256);  // cells come in steps of 256
    c.n_batch = c.n_ubatch = uint32_t(p.ubatch);
    c.n_outputs_max = c.n_outputs_max_per_seq = most_outputs(p);
    c.n_threads = c.n_threads_batch = p.threads;
    c.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    c.type_k = c.type_v = kv_type(p.kv);
    c.abort_callback = on_abort;
    if (p.node) {
      c.cb_eval = [](ggml_tensor* t, bool ask, void* pass) {
        return static_cast<const Pass*>(pass)->node(t, ask);
      };
      c.cb_eval_user_data = const_cast<Pass*>(&p);
    }
    llama_log.last_error.clear();
    ctx_ = llama_init_from_model(model.get(), c);
    if (!ctx_) {
      throw Error(
          fmt::format("no context of {} tokens with kv {}: {}", c.n_ctx, p.kv, last_error()));
    }
    batch_ = llama_batch_init(int32_t(p.ubatch), 0, 1);
  }
  ~Context() {
    llama_batch_free(batch_);
    llama_free(ctx_);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  void clear() { llama_memory_clear(llama_get_memory(ctx_), true); }
  llama_context* get() { return ctx_; }

  // Tokens [first, last) at their positions; `next` walks pass.positions. Returns seconds.
  double decode(const Pass& p, int64_t first, int64_t last, size_t next) {
    batch_.n_tokens = int32_t(last - first);
    for (int64_t t = first; t < last; ++t) {
      const int64_t i = t - first;
      const bool wanted = next < p.positions->size() && (*p.positions)[next] == t;
      next += wanted;
      batch_.token[i] = (*p.tokens)[t];
      batch_.pos[i] = int32_t(t);
      batch_.n_seq_id[i] = 1;
      batch_.seq_id[i][0] = 0;
      batch_.logits[i] = wanted;
    }
    llama_log.last_error.clear();
    const auto begin = std::chrono::steady_clock::now();
    const int rc = llama_decode(ctx_, batch_);
    llama_synchronize(ctx_);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    check_interrupt();
    if (rc != 0) {
      throw Error(fmt::format("llama_decode of tokens {}..{} failed ({}): {}", first, last, rc,
                              last_error()));
    }
    return took.count();
  }

 private:
  llama_context* ctx_ = nullptr;
  llama_batch batch_ = {};
};

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }
double peak_mib() {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    if (word == "VmHWM:") {
      double kib = 0;
      in >> kib;
      return kib / 1024;
    }
  }
  return 0;
}

}  // namespace

ggml::Control& load_plugin(const std::string& path) {
  llama_log_set(on_log, nullptr);
  ggml_backend_reg_t reg = ggml_backend_reg_by_name("REGARD");
  if (!reg) {
    const std::string file = path.empty() ? beside_program("libggml-regard.so") : path;
    if (!std::filesystem::exists(file)) {
      throw Error(fmt::format("plug-in '{}': no such file (--plugin FILE names another)", file));
    }
    reg = ggml_backend_load(file.c_str());
    if (!reg) throw Error(fmt::format("plug-in '{}' does not load: {}", file, last_error()));
  }
  void* entry = ggml_backend_reg_get_proc_address(reg, "regard_control");
  if (!entry) throw Error("the loaded plug-in has no 'regard_control': it is of another version");
  return *static_cast<ggml::Control*>(entry);
}

Model::Model(const std::string& path, bool verbose)
    : name_(std::filesystem::path(path).stem().string()) {
  check_gguf(path);
  llama_log.verbose = verbose;
  llama_log_set(on_log, nullptr);
  llama_model_params p = llama_model_default_params();
  p.n_gpu_layers = 0;
  p.progress_callback = on_load_progress;
  llama_log.last_error.clear();
  model_ = llama_model_load_from_file(path.c_str(), p);
  check_interrupt();
  if (!model_) throw Error(fmt::format("model '{}' does not load: {}", path, last_error()));
  if (const std::string why = unsupported(model_); !why.empty()) {
    llama_model_free(model_);
    throw Error(fmt::format("model '{}' {}; a decoder-only model with softmax attention is needed",
                            path, why));
  }
}
Model::~Model() { llama_model_free(model_); }

std::vector<int32_t> Model::tokenize_piece(const std::string& text) const {
  if (text.size() > size_t(INT_MAX)) {
    throw Error(fmt::format("text of {} bytes; at most {} are accepted", text.size(), INT_MAX));
  }
  const llama_vocab* vocab = llama_model_get_vocab(model_);
  std::vector<int32_t> out(text.size() + 2);  // never more tokens than bytes, BOS and EOS
  const int32_t n = llama_tokenize(vocab, text.data(), int32_t(text.size()), out.data(),
                                   int32_t(out.size()), /*add_special=*/false, false);
  if (n < 0) throw Error(fmt::format("the model's tokenizer failed on the text ({})", n));
  out.resize(n);
  return out;
}

std::vector<int32_t> Model::tokenize(const std::string& text) const {
  std::vector<int32_t> out = tokenize_piece(text);
  const llama_vocab* vocab = llama_model_get_vocab(model_);
  if (llama_vocab_get_add_bos(vocab)) out.insert(out.begin(), llama_vocab_bos(vocab));
  return out;
}

int64_t Model::train_ctx() const { return llama_model_n_ctx_train(model_); }
int64_t Model::vocab() const { return llama_vocab_n_tokens(llama_model_get_vocab(model_)); }
int64_t Model::layers() const { return llama_model_n_layer(model_); }
int64_t Model::heads() const { return llama_model_n_head(model_); }
int64_t Model::kv_heads() const { return llama_model_n_head_kv(model_); }
int64_t Model::head_size() const {
  char arch[128] = {}, text[64] = {};
  llama_model_meta_val_str(model_, "general.architecture", arch, sizeof arch);
  int64_t size = llama_model_n_embd(model_) / std::max(1, llama_model_n_head(model_));
  for (const char* key : {"key_length", "value_length"}) {
    const std::string name = fmt::format("{}.attention.{}", arch, key);
    if (llama_model_meta_val_str(model_, name.c_str(), text, sizeof text) > 0)
      size = std::max<int64_t>(size, std::atoll(text));
  }
  return std::max<int64_t>(1, size);
}
std::string Model::description() const {
  char arch[128] = {};
  llama_model_meta_val_str(model_, "general.architecture", arch, sizeof arch);
  return fmt::format("{} ({}, {})", name_, arch, llama_ftype_name(llama_model_ftype(model_)));
}

PassResult run_pass(const Model& model, const Pass& pass) {
  reset_peak();
  Context ctx(model, pass);
  const int64_t tokens = int64_t(pass.tokens->size());
  if (pass.warm_up) {
    ctx.decode(pass, 0, std::min(pass.ubatch, tokens), pass.positions->size());
    ctx.clear();
  }
  if (pass.warm) pass.warm();
  PassResult result;
  size_t next = 0;
  for (int64_t first = 0; first < tokens; first += pass.ubatch) {
    const int64_t last = std::min(first + pass.ubatch, tokens);
    result.seconds += ctx.decode(pass, first, last, next);
    for (; next < pass.positions->size() && (*pass.positions)[next] < last; ++next) {
      const float* logits =
          llama_get_logits_ith(ctx.get(), int32_t((*pass.positions)[next] - first));
      if (pass.scored) pass.scored(int64_t(next), logits);
    }
    if (pass.progress) pass.progress(last);
    check_interrupt();
  }
  result.peak_mib = peak_mib();
  return result;
}

std::string machine() {
  std::string cpu = "unknown CPU";
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) {
      cpu = line.substr(std::min(line.size(), line.find(':') + 2));
      break;
    }
  }
  return fmt::format("{}, {} hardware threads, {}", cpu, hardware_threads(), cpu_target());
}

}  // namespace regard::cli
