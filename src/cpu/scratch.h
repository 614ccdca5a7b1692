// Per-thread memory of one item, kept by the thread between calls. Layer: cpu.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace regard::cpu {

// Sized for the widest vectors (16 lanes, panels of 32): about (dk + dv) * (rows + 64 keys) words.
// Contents are whatever the last item left; every word was initialised once. Arithmetics (see
// numeric-inl.h) use either the f32 array or the array of words of an operand.
struct Scratch {
  float* queries;         // row panels [dk][panel rows], or rows [dk rounded up to a vector]
  float* keys;            // panels [dk][2 vectors]
  float* values;          // panels [64][2 vectors]
  float* decoded;         // one vector of decoded rows of K or V
  float* scores;          // [panel rows, or kFewRows][64]
  float* key_bias;        // [64]
  float* acc;             // [rows][dv rounded up to a vector]
  float* max;             // [rows]
  float* sum;             // [rows][vector]
  uint32_t* query_words;  // panels [words][panel rows], or [few rows][blocks][5 vectors]
  uint32_t* key_words;    // panels [words][2 vectors]
  uint32_t* value_pairs;  // panels [32][2 vectors]
  uint32_t* weights;      // [panel rows][32], or [4 rows][blocks of 32 channels][32]
  uint32_t* word_rows;    // one vector of rows of words
  float* query_step;      // int8: [blocks of 32 channels][panel rows]
  float* query_low;       // the same
  float* key_step;        // [blocks][64]
  float* key_sum;         // [blocks][64]
  float* mean;            // [dk]
  float* shift;           // [one vector]

  // rows: of the largest row tile. The memory belongs to the calling thread.
  Scratch(int64_t rows, int64_t dk, int64_t dv) {
    rows += 12;  // the last panel may be padded
    size_t need = 0;
    layout(rows, dk, dv, [&](auto*&, int64_t n) { need += size_t(n + 15) / 16 * 64; });
    std::byte* next = memory(need);
    layout(rows, dk, dv, [&](auto*& to, int64_t n) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(next);
      next += size_t(n + 15) / 16 * 64;
    });
  }

 private:
  // At least `need` bytes of zeros, kept for the next call. In huge pages where the system has
  // them: scattered pages of 4 KiB fall on the same sets of L2 now and then (up to 20 % slower).
  static std::byte* memory(size_t need) {
    struct Block {
      std::byte* data = nullptr;
      size_t size = 0;
      ~Block() { std::free(data); }
    };
    static thread_local Block block;
    if (block.size < need) {
      constexpr size_t kPage = size_t(2) << 20;
      std::free(block.data);
      block.size = (need + kPage - 1) / kPage * kPage;
      block.data = static_cast<std::byte*>(std::aligned_alloc(kPage, block.size));
      if (!block.data) {
        block.size = 0;
        throw std::bad_alloc();
      }
#ifdef MADV_HUGEPAGE
      madvise(block.data, block.size, MADV_HUGEPAGE);
#endif
      std::memset(block.data, 0, block.size);
    }
    return block.data;
  }

  // Calls place(pointer, number of 4-byte elements) for every array.
  template <class F>
  void layout(int64_t rows, int64_t dk, int64_t dv, const F& place) {
    const int64_t dk_up = (dk + 31) / 32 * 32, dv_up = (dv + 31) / 32 * 32;
    place(queries, rows * dk_up);
    place(keys, 64 * dk_up);
    place(values, 64 * dv_up);
    place(decoded, 16 * std::max(dk_up, dv_up));
    place(scores, 16 * 64);
    place(key_bias, 64);
    place(acc, rows * dv_up);
    place(max, rows);
    place(sum, rows * 16);
    place(query_words, std::max(rows, std::min<int64_t>(rows, 16) * 5 / 2) * dk_up);
    place(key_words, 64 * dk_up);
    place(value_pairs, 32 * dv_up);
    place(weights, std::max<int64_t>(12 * 32, 4 * dv_up));
    place(word_rows, 16 * dk_up);
    place(query_step, rows * dk_up / 32);
    place(query_low, rows * dk_up / 32);
    place(key_step, 2 * std::max(dk_up, dv_up));
    place(key_sum, 2 * std::max(dk_up, dv_up));
    place(mean, dk_up);
    place(shift, 16);
  }
};

}  // namespace regard::cpu
