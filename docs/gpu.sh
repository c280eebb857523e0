#!/bin/sh
# The first half hour on a GPU machine, without a package registry. See docs/gpu.md.
#
#   sh docs/gpu.sh collect    on a machine with a registry: what lossbench needs, in carried/
#   sh docs/gpu.sh            on the GPU machine: all steps below, in this order
#   sh docs/gpu.sh check headline tables pack
#
# Each step takes less than ten minutes, and goes on where it was stopped. One that fails says so,
# and the next ones are done all the same.
cd "$(dirname "$0")/.." || exit 2
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD:$PWD/carried${PYTHONPATH:+:$PYTHONPATH}"

collect() {
    # for this version of Python; without torch, triton and numpy, which the GPU machine has
    "$python" -m pip install --target carried --upgrade --no-deps \
        typer rich markdown-it-py mdurl pygments shellingham typing-extensions click annotated-doc \
        pandas python-dateutil six tzdata pytz tabulate jinja2 markupsafe safetensors scipy \
        scikit-learn joblib threadpoolctl nvidia-ml-py networkx
}

versions() {
    "$python" - > "$out/versions.txt" 2>&1 << 'END'
import importlib, os, platform, shutil, sys, sysconfig
needed = "torch triton numpy scipy safetensors typer rich".split()
missing = []
print("python", platform.python_version(), "on", platform.platform())
for name in [*needed, *"pandas sklearn fvcore pynvml tabulate jinja2 matplotlib networkx".split()]:
    try:
        print(name, getattr(importlib.import_module(name), "__version__", "is there"))
    except Exception as error:
        print(name, "is not there:", error)
        missing += [name] * (name in needed)
if "torch" not in missing:
    import torch
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print("GPU:", gpu, "CUDA:", torch.version.cuda)
    missing += ["a GPU that torch sees"] * (gpu == "none")
# Triton builds the code that starts a kernel
compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print("C compiler:", compiler, "Python.h:", os.path.exists(header))
missing += ["a C compiler"] * (not compiler) + ["Python.h"] * (not os.path.exists(header))
if missing:
    sys.exit(f"missing: {', '.join(missing)}; packages: sh docs/gpu.sh collect, on a machine with a registry")
END
    status=$?
    cat "$out/versions.txt"
    return $status
}

check() {
    "$python" -m lossbench run --suite gpu-check --device cuda --budget 4m --timeout 90s --out "$out/gpu.jsonl"
}

headline() {
    "$python" -m lossbench run --suite gpu-headline --device cuda --budget 6m --timeout 90s --out "$out/gpu.jsonl"
}

rest() {
    "$python" -m lossbench run --suite gpu --device cuda --budget 8m --timeout 3m --out "$out/gpu.jsonl"
}

tables() {
    "$python" -m lossbench.reports table kernels "$out/gpu.jsonl" --out "$out/kernels.md"
    "$python" -m lossbench.reports table devices "$out/gpu.jsonl" --out "$out/devices.md"
}

pack() {
    tar -czf "$out.tar.gz" -C "$(dirname "$out")" "$(basename "$out")" && echo "packed: $out.tar.gz"
}

failed=0
for step in "${@:-all}"; do
    case "$step" in
        all) steps="versions check headline tables pack" ;;
        collect | versions | check | headline | rest | tables | pack) steps=$step ;;
        *)
            echo "gpu.sh: error: no step $step: collect, versions, check, headline, rest, tables, pack" >&2
            exit 2
            ;;
    esac
    for each in $steps; do
        echo "== $each"
        "$each" || { echo "== $each failed (exit status $?): see above"; failed=1; }
    done
done
exit $failed
