// A row of the frontier: one method on the real model at one length. Layer: cli.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/frontier.h"
#include "cli/recall.h"
#include "cli/run_model.h"
#include "cli/run_score.h"
#include "cli/run_timed.h"

namespace regard::cli {

// The document at one length. Rows are JSON objects {kind: "row", length, name, ..} as the page
// reads them; numbers that are not known are null.
class LengthRun {
 public:
  // Told at the start of each pass over the tokens and as it goes.
  struct Watcher {
    std::function<void(const std::string& name)> begin;
    std::function<void(int64_t done)> update;
    std::function<void()> end;
  };
  LengthRun(const FrontierArgs& args, const Model& model, ggml::Control& control,
            const std::vector<int32_t>& text, int64_t length, Watcher watcher);

  Json llama_row();
  // Exact attention: every row is compared with it, so this comes before row().
  Json exact_row();
  // Exact's passes again without a row, where its row is there from a run before.
  void reference_only();
  Json row(const Setting& s, const Json& llama, const Json& exact);

 private:
  struct Passed;
  Passed measure(const std::string& name, ggml::Mode mode, const std::string& spec,
                 Scorer::Role role, const std::function<void(const ggml::Node&)>& draw = {});
  Json recall(const std::string& name, ggml::Mode mode, const std::string& spec,
              const std::vector<int32_t>& tokens);
  Pass pass(const std::vector<int32_t>& tokens, const std::vector<int64_t>& positions) const;
  Json common(const std::string& spec, const Passed& p) const;

  const FrontierArgs& args_;
  const Model& model_;
  ggml::Control& control_;
  Watcher watcher_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  RecallTask recall_;
  std::unique_ptr<Scorer> scorer_;
  std::vector<int> layers_;  // whose plans are pictured and whose mass is measured
};

}  // namespace regard::cli
