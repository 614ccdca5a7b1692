/* Causal attention of 4 query heads over 2 KV heads through a window of 64 tokens, in C. */
#include <math.h>
#include <regard/regard.h>
#include <stdio.h>
#include <stdlib.h>

static regard_view f32(float* data, int64_t heads, int64_t tokens, int64_t channels) {
  const regard_view v = {data,
                         REGARD_F32,
                         REGARD_CPU,
                         {1, heads, tokens, channels},
                         {heads * tokens * channels * 4, tokens * channels * 4, channels * 4, 4}};
  return v;
}

static float* numbers(size_t n) {
  float* x = malloc(n * sizeof(float));
  for (size_t i = 0; i < n; ++i) x[i] = sinf((float)i);
  return x;
}

static int failed(void) {
  fprintf(stderr, "%s\n", regard_error());
  return 1;
}

int main(void) {
  enum { heads = 4, kv_heads = 2, tokens = 256, channels = 32 };
  float *q = numbers(heads * tokens * channels), *k = numbers(kv_heads * tokens * channels),
        *v = numbers(kv_heads * tokens * channels), *out = numbers(heads * tokens * channels),
        *lse = numbers(heads * tokens);

  regard_problem problem;
  regard_problem_init(&problem);
  problem.heads = heads, problem.kv_heads = kv_heads;
  problem.nq = problem.nk = tokens, problem.dk = problem.dv = channels;

  regard_branch window;
  regard_branch_init(&window);
  window.cover = REGARD_BAND, window.left = 63, window.right = 0, window.causal = 1;

  regard_tensors t;
  regard_tensors_init(&t);
  t.q = f32(q, heads, tokens, channels), t.k = f32(k, kv_heads, tokens, channels);
  t.v = f32(v, kv_heads, tokens, channels), t.out = f32(out, heads, tokens, channels);
  t.lse = f32(lse, heads, tokens, 1);

  regard_plan* plan;
  if (regard_plan_create(&problem, &window, 1, REGARD_ONLY, NULL, &plan)) return failed();
  regard_runner* runner;
  if (regard_runner_create(plan, &t, NULL, &runner)) return failed();
  if (regard_runner_run(runner, &t, NULL, 0, NULL)) return failed();
  double density;
  if (regard_plan_density(plan, &density)) return failed();
  /* The first query reads the first key alone: its output is that key's value. */
  printf("c on %s: density %.3f, first output off by %g\n", regard_runner_implementation(runner),
         density, fabs((double)out[1] - (double)v[1]));

  problem.kv_heads = 3; /* does not divide 4: an error with its reason */
  regard_plan* none;
  if (regard_plan_create(&problem, &window, 1, REGARD_ONLY, NULL, &none) == 0) return 1;
  printf("c error: %s\n", regard_error());

  regard_runner_free(runner);
  regard_plan_free(plan);
  free(q), free(k), free(v), free(out), free(lse);
  return 0;
}
