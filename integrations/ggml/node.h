// A GGML_OP_FLASH_ATTN_EXT node in Regard's nouns. Layer: integrations.
#pragma once
#include <string>

#include "ggml.h"
#include "mask.h"
#include "regard/inputs.h"
#include "regard/plan.h"

namespace regard::ggml {

// Empty if Regard computes this node, else why not: "K of type q1_0". For supports_op.
std::string node_refusal(const ggml_tensor* op);

// One sequence of a node, or all of them where their masks agree.
struct Piece {
  Inputs inputs;  // keys trimmed to those that are read
  View out;       // [B, heads, nq, dv] f32
};
Piece make_piece(const ggml_tensor* op, const MaskPart& mask, int64_t sequence, int64_t sequences);

// The exact plan: mask, score and norm of the node and nothing left out.
Plan exact_plan(const Inputs& x, const MaskPart& mask);

// From the name of the tensor behind K, such as "cache_k_l12"; -1 where there is none.
int layer_of(const ggml_tensor* op);

}  // namespace regard::ggml
