// llama.cpp's question whether flash attention is supported, recognised.
//
// With -fa auto, its default, a new llama_context plans one graph of a token a sequence and turns
// flash attention off if the node lies on another device than its layer; an accelerator counts as
// one. Such a graph is never computed, so it may stay with the layer's device: Regard takes the
// ones after it.
#pragma once

#include "ggml.h"

namespace regard::ggml {

// A context begins on this thread.
void begin_probe();

// Whether `node` (FLASH_ATTN_EXT) belongs to the first graph since begin_probe(): keys are the
// whole of a cache, as many queries as in the first node asked about. False for ever after the
// first other node of a cache; nodes without one (another program's) change nothing.
bool in_probe(const ggml_tensor* node);

}  // namespace regard::ggml
