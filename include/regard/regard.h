/* Regard in C: problem, plan, runner. For C, ctypes and other runtimes. Layer: exec.
 *
 * A call returns 0, or -1 with its reason in regard_error() (of this thread, until its next call).
 * Structs begin with their own size, which regard_*_init() sets along with the defaults, so that
 * later versions can add fields at their end. Strides are in bytes. Handles are freed by
 * regard_*_free(), which take null too. No C++ exception comes out of here.
 */
#ifndef REGARD_REGARD_H
#define REGARD_REGARD_H
#include <stddef.h>
#include <stdint.h>
#if defined(REGARD_SHARED) && defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

enum { REGARD_F64, REGARD_F32, REGARD_F16, REGARD_BF16, REGARD_I32 };
enum { REGARD_CPU, REGARD_CUDA };
enum { REGARD_ALL, REGARD_BAND, REGARD_TILES, REGARD_COLUMNS };
enum { REGARD_SOFTMAX, REGARD_SOFTMAX_SINK, REGARD_SIGMOID };
enum { REGARD_ONLY, REGARD_SAME, REGARD_GATED };

/* As View (view.h): four axes, data null where the tensor is absent. */
typedef struct regard_view {
  void* data;
  int32_t dtype, device;
  int64_t size[4], stride[4];
} regard_view;

/* As Tensors (tensors.h). */
typedef struct regard_tensors {
  size_t struct_size;
  regard_view q, k, v, out, lse, pages;
} regard_tensors;

/* As Problem (problem.h). Defaults: one of everything, scale NaN (1 / sqrt(dk)), the last query
 * meets the last key. cu_q, cu_k: sequences + 1 cumulative lengths each, or null. */
typedef struct regard_problem {
  size_t struct_size;
  int64_t batch, heads, kv_heads, nq, nk, dk, dv;
  float scale;
  int64_t offset; /* INT64_MIN: nk - nq */
  int64_t sequences;
  const int64_t *cu_q, *cu_k;
} regard_problem;

/* As Branch (plan.h). Pointers are read during the call that takes the struct; the memory of bias
 * and key_bias (host or GPU) is borrowed for the life of the plan. */
typedef struct regard_branch {
  size_t struct_size;
  int32_t cover, causal;
  int64_t left, right, sink; /* the band, or the rule's window; -1: no limit */
  /* Tiles and columns (bk 1): an IndexList (tiles.h); start has batch * heads * rows + 1 entries.
   */
  int64_t list_batch, list_heads;
  int32_t bq, bk;
  const int64_t* start;
  const uint32_t* index;
  int32_t pooled; /* > 1: keys are means of so many tokens */
  float softcap;
  const float* alibi; /* [heads] or null */
  regard_view bias;
  const float* bias_scale; /* [heads] or null */
  regard_view key_bias;
  const uint64_t* mask; /* BitMask words [mask_batch, mask_heads, nq, ceil(keys / 64)] or null */
  int64_t mask_batch, mask_heads;
  int32_t norm;
  const float* sink_logit; /* [heads], with REGARD_SOFTMAX_SINK */
  float shift;             /* with REGARD_SIGMOID */
} regard_branch;

/* As RunOptions (run.h). */
typedef struct regard_options {
  size_t struct_size;
  int32_t threads, strict;
  const char* impl; /* null: the first that can */
} regard_options;

typedef struct regard_plan regard_plan;
typedef struct regard_runner regard_runner;

void regard_tensors_init(regard_tensors*);
void regard_problem_init(regard_problem*);
void regard_branch_init(regard_branch*);
void regard_options_init(regard_options*);

const char* regard_error(void);
const char* regard_version(void);

/* Branches (1 to 16) under a combine; `gate` is f32 [B, heads, nq, branches] for REGARD_GATED,
 * borrowed, else null. */
int regard_plan_create(const regard_problem*, const regard_branch* branches, int32_t count,
                       int32_t combine, const regard_view* gate, regard_plan** plan);
/* A method of the catalogue, "xattention:threshold=0.9", on q, k, v; scale NaN: 1 / sqrt(dk). In a
 * GPU's memory q and k are read after the work on the default stream. A plan made from tensors in
 * the CPU's memory runs on a GPU's of the same sizes, and the other way round: it says nothing of
 * memory. Methods whose stages have no GPU kernels are planned that way, from the caller's copies.
 */
int regard_plan_method(const char* spec, const regard_tensors*, int32_t causal, float scale,
                       regard_plan** plan);
/* The plan of a text that Plan.json() or to_json() wrote: all that a plan can say. */
int regard_plan_json(const char* text, regard_plan** plan);
/* Share of exact attention's pairs that the plan reads. */
int regard_plan_density(const regard_plan*, double* density);
void regard_plan_free(regard_plan*);

/* Plans, allocates, runs and waits for the result. options: null for the defaults. */
int regard_attend(const regard_plan*, const regard_tensors*, const regard_options*, void* stream);

/* As Runner (run.h): making one may allocate and wait, running does neither. */
int regard_runner_create(const regard_plan*, const regard_tensors*, const regard_options*,
                         regard_runner** runner);
int64_t regard_runner_workspace(const regard_runner*);
const char* regard_runner_implementation(const regard_runner*);
int regard_runner_run(const regard_runner*, const regard_tensors*, void* workspace, int64_t bytes,
                      void* stream);
void regard_runner_free(regard_runner*);

#ifdef __cplusplus
}
#endif
#if defined(REGARD_SHARED) && defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
