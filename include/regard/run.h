// Running a plan. Layer: exec.
#pragma once
#include <string>
#include <vector>

#include "regard/ctx.h"
#include "regard/out.h"
#include "regard/plan.h"
#include "regard/view.h"

namespace regard {

struct RunOptions {
  int threads = 0;   // 0: all cores; results have the same bits for any number
  std::string impl;  // force one implementation by name; empty: the first that can
  bool strict =
      false;  // refuse (with the reasons) rather than fall back from the first on the list
  Trace* trace = nullptr;
};

// out <- attention of q, k, v over the pairs of `plan`. Views as in Inputs and Out. Throws Error
// before anything is written: shapes, types, strides, an invalid plan, no implementation.
void attend(const Plan& plan, const View& q, const View& k, const View& v, const Out& out,
            const RunOptions& options = {});

struct Choice {
  std::string name;     // "cuda", "cpu", "ref"
  std::string refusal;  // why it cannot run this plan; empty: it can
  bool chosen = false;
};
// Every implementation in order of preference, with what attend() would choose.
std::vector<Choice> explain(const Plan& plan, const View& q, const View& k, const View& v,
                            const Out& out, const RunOptions& options = {});

// Why this machine cannot compute in an arithmetic of numerics() (plan.h); empty: it can. Error if
// the name is none of them.
std::string numeric_refusal(const std::string& name);
// The fastest arithmetic on this machine whose error on such a problem over such keys is no larger
// than that of llama.cpp's own CPU kernel (docs/decisions/2026-11-22-numerics.md): what the plug-in
// for it computes in unless told otherwise.
std::string default_numeric(const Problem& p, DType keys);

const char* version();     // "0.1.0"
std::string cpu_target();  // the instruction set in use: "AVX3", "AVX2", ...
int hardware_threads();

}  // namespace regard
