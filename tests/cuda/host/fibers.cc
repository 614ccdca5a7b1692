#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernel.h"

host::Index threadIdx, blockIdx;
dim3 blockDim;

// Saves this stack in *save and goes on with the other (x86-64: the registers that calls keep).
extern "C" void regard_host_switch(void** save, void* to);
asm(R"(
.text
.globl regard_host_switch
regard_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace host {
namespace {

constexpr int kThreads = 1024, kStack = 128 << 10, kShared = 228 << 10, kWarps = kThreads / 32;

struct Copy {
  uint32_t to;
  const void* from;
  int bytes;
};

struct Fiber {
  enum State { ready, at_barrier, at_warp, done };
  std::unique_ptr<char[]> stack;
  void* sp = nullptr;
  State state = ready;
  Meet how = Meet::sync;
  uint32_t value = 0, got = 0;
  int from = 0;  // a lane; -1: a vote
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};

Fiber fibers[kThreads];
void* home;
int current;
const std::function<void()>* body;

void leave(Fiber::State state) {
  fibers[current].state = state;
  regard_host_switch(&fibers[current].sp, home);
}

void enter() {
  (*body)();
  leave(Fiber::done);
}

void begin(Fiber& f) {
  if (!f.stack) f.stack.reset(new char[kStack]);
  const uintptr_t top = reinterpret_cast<uintptr_t>(f.stack.get() + kStack) / 64 * 64;
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;  // nobody to return to
  *--sp = reinterpret_cast<void*>(&enter);
  for (int n = 0; n < 6; ++n) *--sp = nullptr;
  f.sp = sp, f.state = Fiber::ready;
  f.open.clear(), f.groups.clear();
}

// Lets a warp go on whose living lanes have all come. Whether one was waiting.
bool release_warp(Fiber* lanes) {
  int came = 0, alive = 0;
  uint32_t votes = 0, values[32];
  for (int l = 0; l < 32; ++l) {
    alive += lanes[l].state != Fiber::done, came += lanes[l].state == Fiber::at_warp;
    values[l] = lanes[l].value;
    if (lanes[l].state == Fiber::at_warp && values[l]) votes |= 1u << l;
  }
  if (came == 0 || came < alive) return false;
  for (int l = 0; l < 32; ++l) {
    if (lanes[l].state != Fiber::at_warp) continue;
    lanes[l].got = lanes[l].from < 0 ? votes : values[lanes[l].from];
    lanes[l].state = Fiber::ready;
  }
  return true;
}

void release_block(int threads) {
  int came = 0, alive = 0;
  bool any = false, all = true;
  for (int t = 0; t < threads; ++t) {
    alive += fibers[t].state != Fiber::done;
    if (fibers[t].state != Fiber::at_barrier) continue;
    ++came, any |= fibers[t].value != 0, all &= fibers[t].value != 0;
  }
  if (came < alive) {
    std::fprintf(stderr, "deadlock: %d of %d threads at the barrier\n", came, alive);
    std::abort();
  }
  for (int t = 0; t < threads; ++t) {
    if (fibers[t].state != Fiber::at_barrier) continue;
    fibers[t].got = fibers[t].how == Meet::all ? all : any;
    fibers[t].state = Fiber::ready;
  }
}

void run_block(int threads) {
  for (int t = 0; t < threads; ++t) begin(fibers[t]);
  while (true) {
    bool alive = false, moved = false;
    for (int t = 0; t < threads; ++t) {
      if (fibers[t].state == Fiber::ready) {
        current = t, threadIdx.x = unsigned(t);
        regard_host_switch(&home, fibers[t].sp);
      }
      alive |= fibers[t].state != Fiber::done;
    }
    if (!alive) return;
    for (int w = 0; w < threads; w += 32) moved |= release_warp(&fibers[w]);
    if (!moved) release_block(threads);
  }
}

}  // namespace

void run(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  blockDim = block, body = &kernel;
  if (block.x > kThreads || block.x % 32 != 0 || block.y != 1 || block.z != 1) std::abort();
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(int(block.x));
      }
}

int meet(int value, Meet how) {
  Fiber& f = fibers[current];
  f.value = uint32_t(value), f.how = how;
  leave(Fiber::at_barrier);
  return int(f.got);
}

uint32_t exchange(uint32_t value, int from) {
  Fiber& f = fibers[current];
  f.value = value, f.from = from;
  leave(Fiber::at_warp);
  return f.got;
}

uint32_t vote(bool value) { return exchange(value, -1); }

char* shared() {
  alignas(1024) static char memory[kShared];
  return memory;
}

void copy(uint32_t to, const void* from, int bytes) {
  fibers[current].open.push_back({to, from, bytes});
}

void commit() {
  Fiber& f = fibers[current];
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}

void wait(int pending) {
  std::vector<std::vector<Copy>>& groups = fibers[current].groups;
  while (int(groups.size()) > pending) {
    for (const Copy& c : groups.front())
      c.from ? std::memcpy(shared() + c.to, c.from, size_t(c.bytes))
             : std::memset(shared() + c.to, 0, size_t(c.bytes));
    groups.erase(groups.begin());
  }
}

void load_matrix(uint32_t (&r)[4], uint32_t from, bool transposed) {
  static uint32_t rows[kWarps][32];
  uint32_t* const row = rows[current / 32];
  const int lane = current % 32;
  row[lane] = from;
  vote(false);
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      const int i = transposed ? 2 * (lane % 4) + e : lane / 4;
      const int j = transposed ? lane / 4 : 2 * (lane % 4) + e;
      std::memcpy(&pair[e], shared() + row[8 * m + i] + 2 * j, 2);
    }
    std::memcpy(&r[m], pair, 4);
  }
  vote(false);
}

// Operands as the lanes of a warp bring them: element k of row i of A, of column j of B.
template <class A, class B>
static void add_products(float (&d)[4], int depth, const A& a, const B& b) {
  const int lane = current % 32;
  for (int e = 0; e < 4; ++e) {
    double sum = d[e];
    for (int k = 0; k < depth; ++k)
      sum += double(a(lane / 4 + e / 2 * 8, k)) * double(b(k, 2 * (lane % 4) + e % 2));
    d[e] = float(sum);
  }
}

static uint32_t given_a[kWarps][32][4], given_b[kWarps][32][2];
static void give(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  std::memcpy(given_a[current / 32][current % 32], a, sizeof a);
  given_b[current / 32][current % 32][0] = b0, given_b[current / 32][current % 32][1] = b1;
  vote(false);
}

void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bf16) {
  give(a, b0, b1);
  const auto& from_a = given_a[current / 32];
  const auto& from_b = given_b[current / 32];
  const auto element = [&](uint32_t word, int k) {
    const uint32_t half = k % 2 ? word >> 16 : word & 0xffff;
    if (bf16) return bits<float>(half << 16);
    __half_raw raw;
    raw.x = uint16_t(half);
    return __half2float(__half(raw));
  };
  add_products(
      d, 16,
      [&](int i, int k) { return element(from_a[i % 8 * 4 + k % 8 / 2][i / 8 + k / 8 * 2], k); },
      [&](int k, int j) { return element(from_b[j * 4 + k % 8 / 2][k / 8], k); });
  vote(false);
}

void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  give(a, b0, b1);
  const auto& from_a = given_a[current / 32];
  const auto& from_b = given_b[current / 32];
  const auto element = [](uint32_t word) { return bits<float>(word & 0xffffe000u); };
  add_products(
      d, 8, [&](int i, int k) { return element(from_a[i % 8 * 4 + k % 4][i / 8 + k / 4 * 2]); },
      [&](int k, int j) { return element(from_b[j * 4 + k % 4][k / 4]); });
  vote(false);
}

}  // namespace host
