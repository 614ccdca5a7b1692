// What a mask tensor says.
// Layer: integrations.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "ggml.h"
#include "regard/plan.h"

namespace regard::ggml {

// The mask of one sequence. Queries count from 0; keys are cells of the cache.
struct MaskPart {
  enum class Shape {
    open,    // every query reads keys [0, nk)
    causal,  // query i reads keys [0, i + offset]
    window,  // query i reads keys [i + offset - left, i + offset]
    general  // anything else: several sequences in one cache, cells out of order, two-sided windows
  };
  Shape shape = Shape::open;
  int64_t nk = 0;        // keys from here on are read by nobody; at least 1
  int64_t offset = 0;    // causal, window
  int64_t left = 0;      // window
  bool numeric = false;  // holds values other than 0 and -inf: a bias, to be read by the kernel
  // general: the pairs, and the tiles that hold any, or single keys where those are few. With a
  // numeric mask the bias itself forbids pairs, so `pairs` is null; `cover` is null where no tile
  // is empty.
  std::shared_ptr<const BitMask> pairs;
  std::shared_ptr<const IndexList> cover;
};

struct MaskReading {
  std::vector<MaskPart> parts;  // one a sequence, or one for all where they agree
  const MaskPart& of(int64_t sequence) const { return parts[parts.size() == 1 ? 0 : sequence]; }
};

// Most masks are open, causal or a window: a guess from two rows, and one pass that holds every
// cell against it, settle them at memory speed (512 queries over 32,768 cells are 32 MiB), and
// nothing is remembered. Others are read bit by bit, and the last few of them are remembered by
// size and CONTENT, a 64-bit hash of every cell. Address and graph identity would not do: the
// scheduler hands over one node at a time, llama.cpp reuses graphs and buffers from one micro-batch
// to the next, and nothing announces that the mask was written anew.
class MaskReader {
 public:
  // `mask` null: everything is open. Reads the first `nq` rows of every sequence.
  std::shared_ptr<const MaskReading> read(const ggml_tensor* mask, int64_t nq, int64_t nk,
                                          int threads);

 private:
  struct Entry {
    std::vector<int64_t> key;  // sizes and content hash
    std::shared_ptr<const MaskReading> reading;
  };
  std::vector<Entry> recent_;  // newest first; models with sliding layers use two masks a graph
};

}  // namespace regard::ggml
