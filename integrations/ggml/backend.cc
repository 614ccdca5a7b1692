// The C interface: registration, device and backend. As ggml's BLAS backend is made: an accelerator
// without memory of its own, which takes single operations on host buffers.
#include <atomic>
#include <cstring>
#include <set>

#include "compute.h"
#include "core/parallel.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "probe.h"
#include "regard/run.h"

namespace regard::ggml {
namespace {

constexpr char kName[] = "REGARD";
Engine* engine = nullptr;  // made by ggml_backend_init, lives as long as the library

// -------------------------------------------------------------------------------------------------
// Backend: one for each llama_context.

Computer& computer(ggml_backend_t backend) { return *static_cast<Computer*>(backend->context); }

const char* backend_name(ggml_backend_t) { return kName; }

void backend_free(ggml_backend_t backend) {
  delete &computer(backend);
  delete backend;
}

void set_threads(ggml_backend_t backend, int threads) { computer(backend).set_threads(threads); }

bool no_work(const ggml_tensor* node) {
  switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
      return true;
    default:
      return ggml_is_empty(node);
  }
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph* graph) {
  for (int i = 0; i < graph->n_nodes; ++i) {
    const ggml_tensor* node = graph->nodes[i];
    if (no_work(node)) continue;
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
      say(std::string("asked for ") + ggml_op_desc(node) + ", which it never offered to do");
      return GGML_STATUS_FAILED;
    }
    try {
      computer(backend).compute(graph, i);
    } catch (const std::bad_alloc&) {
      say("out of memory");
      return GGML_STATUS_ALLOC_FAILED;
    } catch (const std::exception& e) {
      say(e.what());
      return GGML_STATUS_FAILED;
    } catch (...) {
      say("unknown failure");
      return GGML_STATUS_FAILED;
    }
  }
  return GGML_STATUS_SUCCESS;
}

constexpr ggml_backend_i kBackend = {
    .get_name = backend_name,
    .free = backend_free,
    .set_tensor_async = nullptr,
    .get_tensor_async = nullptr,
    .set_tensor_2d_async = nullptr,
    .get_tensor_2d_async = nullptr,
    .cpy_tensor_async = nullptr,
    .synchronize = nullptr,
    .graph_plan_create = nullptr,
    .graph_plan_free = nullptr,
    .graph_plan_update = nullptr,
    .graph_plan_compute = nullptr,
    .graph_compute = graph_compute,
    .event_record = nullptr,
    .event_wait = nullptr,
    .graph_optimize = nullptr,
};

ggml_guid_t guid() {
  static ggml_guid id = {'r', 'e', 'g', 'a', 'r', 'd', '-', 'a',
                         't', 't', 'e', 'n', 't', 'i', 'o', 'n'};
  return &id;
}

// -------------------------------------------------------------------------------------------------
// Device

const char* device_name(ggml_backend_dev_t) { return kName; }

const char* device_description(ggml_backend_dev_t) {
  static const std::string text =
      std::string("Regard ") + version() + " attention, " + cpu_target();
  return text.c_str();
}

void device_memory(ggml_backend_dev_t, size_t* free, size_t* total) { *free = *total = 0; }

enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
  return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

void device_props(ggml_backend_dev_t device, ggml_backend_dev_props* props) {
  props->name = device_name(device);
  props->description = device_description(device);
  props->type = device_type(device);
  device_memory(device, &props->memory_free, &props->memory_total);
  props->caps = {.async = false,
                 .host_buffer = false,
                 .buffer_from_host_ptr = true,
                 .events = false,
                 .mmap_support = true};
}

// ggml's own kernels run on OpenMP threads that spin between two nodes: a team of our own would
// have to fight them for the processors, so ours is the same.
void share_threads() {
  static std::once_flag once;
  std::call_once(once, [] {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu || !has_openmp()) return;
    const auto features =
        reinterpret_cast<ggml_backend_get_features_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(cpu), "ggml_backend_get_features"));
    if (!features) return;
    for (auto* f = features(ggml_backend_dev_backend_reg(cpu)); f->name; ++f)
      if (!std::strcmp(f->name, "OPENMP")) use_team(Team::openmp);
  });
}

ggml_backend_t device_init(ggml_backend_dev_t device, const char*) {
  try {
    share_threads();
    begin_probe();
    return new ggml_backend{guid(), kBackend, device, new Computer(*engine)};
  } catch (const std::exception& e) {
    say(e.what());
    return nullptr;
  }
}

ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) {
  return ggml_backend_cpu_buffer_type();
}

ggml_backend_buffer_t device_buffer_from_ptr(ggml_backend_dev_t, void* ptr, size_t size, size_t) {
  return ggml_backend_cpu_buffer_from_ptr(ptr, size);
}

// Says each reason once, or each time where the plan is logged.
void say_refusal(const std::string& why) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  const bool first = said.insert(why).second;
  if (engine->log_plan()) return say("attention left to ggml: " + why);
  if (first) GGML_LOG_WARN("regard: attention left to ggml: %s\n", why.c_str());
}

bool device_supports_op(ggml_backend_dev_t, const ggml_tensor* op) {
  if (no_work(op)) return true;
  if (op->op != GGML_OP_FLASH_ATTN_EXT) return false;
  try {
    if (engine->state().mode == Mode::off) return false;
    if (in_probe(op)) return false;
    const std::string why = node_refusal(op);
    if (!why.empty()) say_refusal(why);
    return why.empty();
  } catch (const std::exception& e) {
    say(e.what());
    return false;
  }
}

bool device_supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t buft) {
  return ggml_backend_buft_is_host(buft);
}

constexpr ggml_backend_device_i kDevice = {
    .get_name = device_name,
    .get_description = device_description,
    .get_memory = device_memory,
    .get_type = device_type,
    .get_props = device_props,
    .init_backend = device_init,
    .get_buffer_type = device_buffer_type,
    .get_host_buffer_type = nullptr,
    .buffer_from_host_ptr = device_buffer_from_ptr,
    .supports_op = device_supports_op,
    .supports_buft = device_supports_buft,
    .offload_op = nullptr,
    .event_new = nullptr,
    .event_free = nullptr,
    .event_synchronize = nullptr,
};

// -------------------------------------------------------------------------------------------------
// Registration

const char* reg_name(ggml_backend_reg_t) { return kName; }

size_t reg_device_count(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
  static ggml_backend_device device = {kDevice, reg, nullptr};
  return &device;
}

void* reg_proc_address(ggml_backend_reg_t, const char* name) {
  if (!std::strcmp(name, "ggml_backend_set_n_threads")) return reinterpret_cast<void*>(set_threads);
  if (!std::strcmp(name, "regard_control")) return static_cast<Control*>(engine);
  return nullptr;
}

ggml_backend_reg_t make_reg() {
  static ggml_backend_reg reg = {
      GGML_BACKEND_API_VERSION,
      {.get_name = reg_name,
       .get_device_count = reg_device_count,
       .get_device = reg_device,
       .get_proc_address = reg_proc_address},
      nullptr,
  };
  try {
    if (const std::string why = version_mismatch(); !why.empty()) {
      say(why);
      return nullptr;
    }
    static Engine the_engine(read_settings());
    engine = &the_engine;
    return &reg;
  } catch (const std::exception& e) {
    say(e.what());
    return nullptr;
  }
}

}  // namespace
}  // namespace regard::ggml

GGML_BACKEND_DL_IMPL(regard::ggml::make_reg)
