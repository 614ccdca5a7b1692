#include "cli/arguments.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "exec/planted.h"
#include "io/io.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

std::string planted_names() {
  std::string s;
  for (const PlantedKind& k : planted_kinds()) s += (s.empty() ? "" : ", ") + std::string(k.name);
  return s;
}

}  // namespace

void MethodArguments::add(CLI::App& verb) {
  verb.add_option("METHOD", spec, "a method: NAME or NAME:key=value,key=value")->required();
  verb.add_option("--set", set, "set a parameter: key=value; a tensor's value is @FILE");
}

Method MethodArguments::parse() const {
  std::string all = spec;
  for (const std::string& s : set) all += (all.find(':') == all.npos ? ":" : ",") + s;
  return parse_method(all);
}

void InputArguments::add(CLI::App& verb, bool with_planted) {
  CLI::Option* in = verb.add_option("--in", files,
                                    "FILE.safetensors with tensors q, k, v, or three files Q.npy "
                                    "K.npy V.npy; [B, H, N, D], [H, N, D] or [N, D]");
  in->expected(1, 3);
  verb.add_flag("--causal,!--no-causal", causal,
                "whether a query sees only keys up to its own "
                "position (the last query meets the last key)");
  verb.add_option("--scale", scale,
                  "multiplies q.k; unless given, what the file says, or 1 / sqrt(D)");
  verb.add_option("--numeric", numeric,
                  "arithmetic of both products: f32 (unless given), bf16, int8 or int16")
      ->check(CLI::IsMember(numerics()));
  if (!with_planted) {
    in->required();
    return;
  }
  verb.add_option("--planted", planted, "made input with a known structure: " + planted_names())
      ->excludes(in);
  const CLI::Range size(int64_t(1), int64_t(1) << 24);
  verb.add_option("--batch", batch, "planted: sequences")->check(size)->capture_default_str();
  verb.add_option("--heads", heads, "planted: query heads")->check(size)->capture_default_str();
  verb.add_option("--kv-heads", kv_heads, "planted: KV heads (as many as query heads)")
      ->check(size);
  verb.add_option("--tokens", tokens, "planted: keys")->check(size)->capture_default_str();
  verb.add_option("--queries", queries, "planted: queries (as many as keys)")->check(size);
  verb.add_option("--dim", dim, "planted: channels a head")->check(size)->capture_default_str();
  verb.add_option("--seed", seed, "planted: seed")->capture_default_str();
}

namespace {

LoadedInputs load_files(const std::vector<std::string>& files, bool v_needed,
                        std::optional<float>* scale) {
  LoadedInputs x;
  if (files.size() == 1) {
    const io::SafeTensors all = io::load_safetensors(files[0], {"q", "k", "v"});
    x.q = all.at("q");
    x.k = all.at("k");
    x.v = v_needed || all.tensors.count("v") ? all.at("v") : x.k;
    // Files of `regard capture` say the model's scale.
    if (const auto it = all.metadata.find("scale"); it != all.metadata.end() && !*scale)
      *scale = std::strtof(it->second.c_str(), nullptr);
    return x;
  }
  if (files.size() == 2 && v_needed) throw Error("--in: three .npy files are needed: q, k, v");
  x.q = io::load_tensor(files[0]);
  x.k = io::load_tensor(files[1]);
  x.v = files.size() == 3 ? io::load_tensor(files[2]) : x.k;
  return x;
}

}  // namespace

LoadedInputs InputArguments::load(bool v_needed) const {
  if (scale && !std::isfinite(*scale))
    throw Error(fmt::format("--scale {}; accepted: a finite number", *scale));
  LoadedInputs x;
  std::optional<float> scale_used = scale;
  if (!files.empty()) {
    x = load_files(files, v_needed, &scale_used);
  } else if (!planted.empty()) {
    Problem p;
    p.batch = batch, p.heads = heads, p.kv_heads = kv_heads ? kv_heads : heads;
    p.nq = queries ? queries : tokens, p.nk = tokens;
    p.dk = p.dv = dim;
    p.offset = p.nk - p.nq;
    constexpr double kMost = 8e9;  // bytes
    const double bytes = 4.0 * double(batch) * double(dim) *
                         (double(heads) * double(p.nq) + 2.0 * double(p.kv_heads) * double(p.nk));
    if (bytes > kMost)
      throw Error(fmt::format("--planted: {} needs {:.0f} GB; accepted: up to {:.0f} GB", p.str(),
                              bytes / 1e9, kMost / 1e9));
    const Planted made = regard::planted(planted, p, seed);
    x.q = made.q, x.k = made.k, x.v = made.v;
  } else {
    throw Error(fmt::format("no input; give --in FILE.safetensors or --planted with one of {}",
                            planted_names()));
  }
  x.inputs.q = x.q.view, x.inputs.k = x.k.view, x.inputs.v = x.v.view;
  x.inputs.problem =
      Problem::of_views(x.q.view, x.k.view, x.v.view, scale_used.value_or(std::nanf("")));
  x.inputs.causal = causal;
  x.inputs.numeric = numeric;
  return x;
}

void add_threads(CLI::App& verb, int* threads) {
  verb.add_option("--threads", *threads,
                  fmt::format("threads, 1 to 4096 (all cores, here {}); results have the same bits "
                              "for any number",
                              hardware_threads()))
      ->check(CLI::Range(1, 4096));
}

}  // namespace regard::cli
