// q, k and v of a model's layers, as its attention reads them and before positions turn them.
// Layer: cli.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cli/run_model.h"
#include "control.h"
#include "regard/view.h"

struct ggml_tensor;

namespace regard::cli {

// Gathers strips of one pass. q, k, v come from the attention nodes themselves; the ones before
// rotation from the graph's nodes named "Qcur..-LAYER" and "Kcur..-LAYER", the last before the
// rotation. Where a graph names them otherwise, they stay empty.
class Collector {
 public:
  struct Layer {
    Tensor q, k, v;                  // [1, heads, tokens, d]: q f32; k, v in the cache's type
    Tensor q_before, k_before;       // f32, empty: not to be had
    float scale = 0;                 // of q.k
    int64_t tokens = 0;              // of q gathered so far
    int64_t q_seen = 0, k_seen = 0;  // tokens of q_before and k_before gathered
    int64_t kv_heads = 0;
  };
  // `heads`: query heads to keep, ascending; empty: all. With a choice, k and v are repeated, one
  // for each query head kept.
  Collector(const Model& model, const std::vector<int64_t>& layers, std::vector<int64_t> heads,
            int64_t tokens);

  void add(const ggml::Node& node);                    // of the plug-in
  bool on_graph_node(const ggml_tensor* t, bool ask);  // of llama.cpp: true while it goes on
  std::map<int64_t, Layer>& layers() { return layers_; }

 private:
  void before(const ggml_tensor* t, Layer* l, bool query);

  std::vector<int64_t> heads_;
  int64_t tokens_, model_heads_, model_kv_heads_;
  std::map<int64_t, Layer> layers_;
};

}  // namespace regard::cli
