// One item, start to end, by the body that suits its row tile. Layer: cpu (per target).
#if defined(REGARD_CPU_ITEM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_ITEM_INL_H_
#undef REGARD_CPU_ITEM_INL_H_
#else
#define REGARD_CPU_ITEM_INL_H_
#endif

#include "cpu/attend-inl.h"
#include "cpu/few-inl.h"
#include "cpu/finish.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

template <class Body>
void Emit(const Call& c, const RowTile& t, const Item& item, const Slots& slots, const Body& body) {
  const int64_t dv = c.w.problem.dv;
  body.ForRows([&](int64_t r, PartialHead<float> head, float* acc) {
    if (t.splits == 1) {
      finish_row(c, t.b, t.h0 + r % t.heads, t.query(r), head, acc);
      return;
    }
    const int64_t slot = t.first_slot + item.split * t.rows() + r;
    slots.head[slot] = head;
    std::memcpy(slots.acc + slot * dv, acc, dv * sizeof(float));
  });
}

template <class Arithmetic>
HWY_INLINE void RunPacked(const Call& c, const RowTile& t, const Item& item, const Scratch& m,
                          const Slots& slots) {
  Attend<Arithmetic> attend(c, t, m);
  attend.Run(item.begin, item.end);
  Emit(c, t, item, slots, attend);
}

void RunItem(const Call& c, const RowTile& t, const Item& item, const Scratch& m,
             const Slots& slots) {
  if (t.rows() <= kFewRows &&
      c.value_skip == 0) {  // memory-bound: rounding K and V further would gain nothing
    Few few(c, t, m);
    few.Run(item.begin, item.end);
    if (few.clean()) return Emit(c, t, item, slots, few);
  }
#if REGARD_DOT && HWY_MAX_BYTES == 64
  if (c.numeric == Numeric::bf16) return RunPacked<Bf16>(c, t, item, m, slots);
  if (c.numeric == Numeric::int8) return RunPacked<Int8>(c, t, item, m, slots);
#endif
  RunPacked<F32>(c, t, item, m, slots);
}

int Lanes() { return kLanes; }
std::string TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
