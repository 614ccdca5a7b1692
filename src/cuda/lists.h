// Lists whose arrays lie on a GPU. Layer: cuda.
#pragma once
#include <atomic>
#include <memory>

#include "cuda/stage.h"

namespace regard::cuda {

class PlacedList : public DeviceList {
 public:
  // `arrays`: start [lists + 1], then index, made by the work on its stream so far.
  // `uncut`: no entry has the boundary flag.
  PlacedList(IndexList shape, std::shared_ptr<stages::Memory> start,
             std::shared_ptr<stages::Memory> index, bool uncut);
  ~PlacedList() override;

  // The list where its arrays lie on this device; else null.
  static const PlacedList* on(int device, const ListRef& list) {
    const auto* const placed = dynamic_cast<const PlacedList*>(list.device());
    return placed && placed->start_->device == device ? placed : nullptr;
  }
  const int64_t* start() const { return static_cast<const int64_t*>(start_->at); }
  const uint32_t* index() const { return static_cast<const uint32_t*>(index_->at); }
  bool uncut() const { return uncut_; }
  // Orders `stream` behind what made the arrays. A graph cannot wait for what it does not hold:
  // while one is captured the host waits instead, once.
  void await(void* stream) const;

  // It is lowered: under another rule the host has to.
  std::shared_ptr<const DeviceList> lowered(const Problem&, const Branch&) const override {
    return nullptr;
  }

 protected:
  IndexList fetch() const override;

 private:
  std::shared_ptr<stages::Memory> start_, index_;
  const bool uncut_;
  cudaEvent_t made_ = nullptr;
  mutable std::atomic<bool> done_ = false;
};

}  // namespace regard::cuda
