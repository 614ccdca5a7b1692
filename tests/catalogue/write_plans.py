"""Writes plans of every method as JSON, for programs that run them elsewhere (tests/cuda):
python write_plans.py DIR. The problems and parameters are those of the catalogue's tests."""
import pathlib
import sys

import catalogue
import regard

PROBLEMS = ["whole", "ragged", "strip", "one query"]


def plans(name):
    """(label, plan) for each set of parameters on each problem that the method takes."""
    for problem in PROBLEMS:
        q, k, v = catalogue.normal(problem)
        for causal in catalogue.causalities(name):
            for number, params in enumerate(catalogue.parameter_sets(name, q, k, causal)):
                try:
                    plan = regard.plan(q, k, v, name, causal=causal, **params)
                except regard.Error:
                    continue  # the catalogue's tests say which refusals are right
                yield f"{name}.{problem.replace(' ', '_')}.{int(causal)}.{number}", plan


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in catalogue.NAMES:
        count = 0
        for label, plan in plans(name):
            (folder / f"{label}.json").write_text(plan.json())
            count += 1
        print(name, count, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
