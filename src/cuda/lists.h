// Lists whose arrays lie on a GPU. Layer: cuda.
#pragma once
#include <atomic>
#include <initializer_list>
#include <memory>
#include <mutex>

#include "cuda/stage.h"

namespace regard::cuda {

// Before memories' last owner goes: whatever may read them, on any stream, is waited for, as
// cudaFree does, since the stream that they were made on may be gone. `event` is destroyed, if
// there is one.
void leave(int device, std::initializer_list<const std::shared_ptr<stages::Memory>*> memories,
           cudaEvent_t event = nullptr);

class PlacedList : public DeviceList {
 public:
  // What may be read instead of this list, of single keys, and the list of `tiles`: pieces of 64
  // keys that begin at any key (with the boundary flag), and the keys that are in none. A row's
  // entries are [start[2 row], start[2 row + 1]) of `index`, and so are its keys.
  struct Pieces {
    std::shared_ptr<stages::Memory> tiles, memory;  // the bits; what holds the arrays
    int64_t *start = nullptr, *key_start = nullptr;
    uint32_t *index = nullptr, *key_index = nullptr;
  };

  // start [lists + 1] and index, made by the work on their stream so far, of `bits` if any.
  // `uncut`: no entry has the boundary flag. An `index` that is null is written when it is asked
  // for.
  PlacedList(IndexList shape, std::shared_ptr<stages::Memory> start,
             std::shared_ptr<stages::Memory> index, bool uncut,
             std::shared_ptr<stages::Memory> bits = nullptr);
  ~PlacedList() override;

  // The list where its arrays lie on this device; else null.
  static const PlacedList* on(int device, const ListRef& list) {
    const auto* const placed = dynamic_cast<const PlacedList*>(list.device());
    return placed && placed->start_->device == device ? placed : nullptr;
  }
  const int64_t* start() const { return static_cast<const int64_t*>(start_->at); }
  const uint32_t* index() const;
  bool uncut() const { return uncut_; }
  const std::shared_ptr<stages::Memory>& bits() const { return bits_; }
  virtual const Pieces* pieces() const { return nullptr; }
  // Orders `stream` behind what made the arrays. A graph cannot wait for what it does not hold:
  // while one is captured the host waits instead, once.
  void await(void* stream) const;

  // It is lowered: under another rule the host has to.
  std::shared_ptr<const DeviceList> lowered(const Problem&, const Branch&) const override {
    return nullptr;
  }

 protected:
  IndexList fetch() const override;
  virtual std::shared_ptr<stages::Memory> written() const { return nullptr; }  // on start's stream

 private:
  std::shared_ptr<stages::Memory> start_;
  mutable std::shared_ptr<stages::Memory> index_;
  mutable std::once_flag once_;
  const bool uncut_;
  std::shared_ptr<stages::Memory> bits_;
  cudaEvent_t made_ = nullptr;
  mutable std::atomic<bool> done_ = false;
};

}  // namespace regard::cuda
