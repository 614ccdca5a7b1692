// Logits of every architecture that llama.cpp knows, with random weights, to a file: its own
// tests/test-llama-archs.cpp makes the models, archs.py compares two runs.
//
//   test-archs OUT [REGEX]    a line "NAME COUNT" each, followed by COUNT floats
#define main unused_main
#include "test-llama-archs.cpp"
#undef main

#include <fstream>
#include <set>

namespace {

// As test_backends: what encodes, and what its fixtures cannot make.
const std::set<llm_arch> kEncodes = {LLM_ARCH_T5, LLM_ARCH_DREAM, LLM_ARCH_LLADA,
                                     LLM_ARCH_LLADA_MOE, LLM_ARCH_RND1};
const std::set<llm_arch> kNoFixture = {LLM_ARCH_EAGLE3, LLM_ARCH_DFLASH};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return fprintf(stderr, "usage: test-archs OUT [REGEX]\n"), 2;
  ggml_backend_load_all();
  std::ofstream out(argv[1], std::ios::binary);
  const std::vector<llama_token> tokens = get_tokens(128, 128, 7);
  for (const llm_arch arch : llm_arch_all()) {
    if (!arch_supported(arch) || kNoFixture.count(arch)) continue;
    if (!arch_matches(argc > 2 ? argv[2] : "", arch)) continue;
    const bool encode = kEncodes.count(arch);
    for (const bool moe : {false, true}) {
      if (moe ? !moe_implemented(arch) : moe_mandatory(arch)) continue;
      const gguf_context_ptr kv = get_gguf_ctx(arch, moe);
      if (arch == LLM_ARCH_BAILINGMOE3) gguf_remove_key(kv.get(), "bailingmoe3.kda.safe_gate");
      const auto [model, context] =
          get_model_and_ctx(kv.get(), nullptr, 7, 0.1f, {}, LLAMA_SPLIT_MODE_LAYER, encode);
      const std::vector<float> logits = get_logits(model.get(), context.get(), tokens, encode);
      out << llm_arch_name(arch) << (moe ? "-of-experts " : " ") << logits.size() << '\n';
      out.write(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float));
    }
  }
  return out.flush() ? 0 : 1;
}
