// Bits and lists that a GPU made: they stay there, and the host's copy is made when it is asked
// for. Layer: plan. Bodies: src/cuda.
#pragma once
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "regard/plan.h"

namespace regard {

class DeviceBits {
 public:
  virtual ~DeviceBits() = default;
  const std::vector<uint64_t>& host() const {
    std::call_once(once_, [this] { host_ = fetch(); });
    return host_;
  }

  enum class Op { either, both, without };  // | & -
  // Of bits whose sizes fit, either of which may lie on the host.
  virtual TileBits combined(const TileBits& a, Op op, const TileBits& b) const = 0;
  // The lowered list of `bits`, which are these, cut into tiles bq x bk; null where the rule is
  // more than causality of one sequence: then the host lowers.
  virtual std::shared_ptr<const DeviceList> lowered(const TileBits& bits, int bq, int bk,
                                                    const Problem& p, const Branch& b) const = 0;

 protected:
  virtual std::vector<uint64_t> fetch() const = 0;  // TileBits::words_; waits

 private:
  mutable std::once_flag once_;
  mutable std::vector<uint64_t> host_;
};

class DeviceList {
 public:
  explicit DeviceList(IndexList shape) : shape_(std::move(shape)) {}
  virtual ~DeviceList() = default;
  const IndexList& shape() const { return shape_; }  // start and index are empty
  const std::shared_ptr<const IndexList>& host() const {
    std::call_once(once_, [this] { host_ = std::make_shared<const IndexList>(fetch()); });
    return host_;
  }
  // The same list lowered for a branch that has it; null: the host has to.
  virtual std::shared_ptr<const DeviceList> lowered(const Problem& p, const Branch& b) const = 0;

 protected:
  virtual IndexList fetch() const = 0;  // waits

 private:
  const IndexList shape_;
  mutable std::once_flag once_;
  mutable std::shared_ptr<const IndexList> host_;
};

// Whether a branch's rule is causality of one sequence over raw keys in their order, or nothing:
// what is lowered on a GPU. Query i then reads keys below clamp(i + offset + 1, 0, nk), or all.
inline bool causal_alone(const Problem& p, const Branch& b) {
  return p.cu_q.empty() && b.source.kind == SourceKind::raw && !b.order && !b.rule.mask &&
         b.rule.window.unlimited() && b.rule.window.sink == 0;
}

}  // namespace regard
