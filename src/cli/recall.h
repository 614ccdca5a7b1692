// Does the model still find what lies far back? A document with passages repeated at its end and
// with needles, asked for at its end. Layer: cli.
//
// A small model's mean loss hides retrieval: few tokens depend on anything a thousand tokens away.
// Here the last eighth of the document does nothing else. Everything follows from the text, the
// length and the seed.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace regard::cli {

struct RecallTask {
  // `without` is the same document, but no passage occurs twice and the needles hold other codes:
  // what a model can say that has nothing to look back to.
  std::vector<int32_t> tokens, without;
  std::vector<int64_t> positions;  // whose next token is scored, ascending
  std::vector<int32_t> next;       // that token
  // Scored positions [first, last) of one question; `distance` tokens back lies its answer.
  struct Question {
    int64_t distance = 0, first = 0, last = 0;
  };
  std::vector<Question> copies;   // the second copy of a passage
  std::vector<Question> needles;  // the code in "The secret code of the fox is 48213."
  std::string why_not;            // the document is too short; empty: the task is there
};

// Tokens of a piece of text, without a token for the beginning.
using Tokenize = std::function<std::vector<int32_t>(const std::string&)>;

// Seven passages at distances of 1/8 to 7/8 of the document (1K to 7K of 8K) and four needles
// between their first copies. `document` has the tokens to be used, the last eighth is replaced.
RecallTask recall_task(const std::vector<int32_t>& document, const Tokenize& tokenize,
                       uint64_t seed);

// Loss and rank (1: the likeliest) of the scored tokens.
class RecallScorer {
 public:
  RecallScorer(const RecallTask& task, int64_t vocab);
  void add(int64_t i, const float* logits);
  // {copies: [{distance, loss}], needles: [{distance, loss, ranks}], copy_loss, needle_loss,
  // needle_hits}: hits is the share of the codes' tokens that are the likeliest.
  nlohmann::ordered_json result() const;

 private:
  const RecallTask& task_;
  int64_t vocab_;
  std::vector<double> loss_;
  std::vector<int64_t> rank_;
};

}  // namespace regard::cli
