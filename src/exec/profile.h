// A profile: which method each head of each layer of a model uses. Layer: exec.
//
// {"regard_profile": 1, "methods": ["dense", "a_shape:n_local=256"], "layers": {"0": [0, 1, 1]}}:
// by layer, the index in `methods` of each query head. Layers that are not listed run exactly.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "regard/method.h"

namespace regard {

struct Profile {
  std::string path;
  std::vector<Method> methods;
  std::map<int64_t, std::vector<int64_t>> layers;  // [layer][head]: index in methods
};
Profile load_profile(const std::string& path);  // throws Error
std::string profile_json(const Profile& p, const std::string& remarks_json = "{}");

// Empty if the profile says how this layer runs on these inputs, else why not.
std::string refusal(const Profile& p, int64_t layer, const Inputs& x);
// The plans of all heads as one, with the model's causality, score and norm, lowered.
Plan make_plan(const Profile& p, int64_t layer, const Inputs& x, const Ctx& ctx);

}  // namespace regard
