#!/usr/bin/env bash
# Does the library work on 64-bit ARM, without PyTorch? Runs the operators' tests and `gradledger adapt` there, emulated.
#   tools/arm64_check.sh [RUNNER] [FOLDER]
# RUNNER: a program with `setup FOLDER REQUIREMENT...` and `run FOLDER PYTHON-ARGUMENT...` that provides an aarch64
#   Python; default ../shared/tools/arm64.sh. An ARM board needs none of this: there, `make test` is the check.
# FOLDER: where the emulated system lies, and stays for the next time; default in the user's cache folder.
# Prints one line a step, with its outcome and seconds; leaves with 1 where a step failed.
# EXAMPLES (default 4) is the number of drawn cases of a property test.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
runner=${1:-../shared/tools/arm64.sh}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/gradledger-arm64}
[ -f "$runner" ] || { echo "there is no runner $runner: name one as the first argument" >&2; exit 2; }
mkdir -p "$folder" || exit 2

export GRADLEDGER_CACHE="$folder/kernels" # apart from the host's kernels
export GRADLEDGER_EXAMPLES=${EXAMPLES:-4} # drawing and counting are plain Python, slow under emulation
export NUMBA_NUM_THREADS=2                # so that one thread is compared with two here as well
failed=0

arm() { bash "$runner" run "$folder" "$@"; }
last_line() { tail -n 1 "$1"; }

# step NAME REPORT COMMAND...: run the command and print one line, which ends with what REPORT makes of the command's
# output; REPORT fails where the output is not what it should be, and then so does the step.
step() {
  local name=$1 report=$2 begin=$SECONDS outcome=ok said=""
  shift 2
  "$@" >"$folder/$name.out" 2>"$folder/$name.err" && said=$("$report" "$folder/$name.out" 2>>"$folder/$name.err") ||
    outcome=FAILED
  printf '%-15s  %-6s  %5d s  %s\n' "$name" "$outcome" $((SECONDS - begin)) "$said"
  [ "$outcome" = ok ] && return
  failed=1
  tail -n 20 "$folder/$name.out" "$folder/$name.err" >&2
  return 1
}

# The core dependencies and what the tests need besides: no PyTorch.
setup() {
  local needed
  mapfile -t needed < <(python3 -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
tools = [t for t in project["optional-dependencies"]["test"] if t.startswith(("pytest>", "hypothesis>"))]
print(*project["dependencies"], *tools, sep="\n")')
  if [ "$(cat "$folder/ready" 2>/dev/null)" = "${needed[*]}" ]; then
    echo "there already"
    return
  fi
  bash "$runner" setup "$folder" "${needed[@]}" && echo "${needed[*]}" >"$folder/ready" &&
    echo "${#needed[@]} packages and what they need"
}

versions() {
  arm -c '
import importlib.util, platform
from gradledger.record import versions
assert platform.machine() == "aarch64", platform.machine()
assert importlib.util.find_spec("torch") is None, "PyTorch is installed there"
print(platform.machine(), *(" ".join(v) for v in versions().items() if v[0] != "gradledger"), sep=", ")'
}

# The reference kernels of every operator; most of the time goes into compiling them.
operators() {
  local files=() name
  for name in add relu relu6 linear conv2d batch_norm frozen_batch_norm max_pool avg_pool global_avg_pool \
    softmax_cross_entropy mse dropout sgd adam clip_norm gradient_filter; do
    files+=("tests/test_$name.py")
  done
  arm -m pytest -q -rs -p no:cacheprovider "${files[@]}"
}

adapt() {
  rm -rf "$folder/adapted-$1" # or the record of an earlier run could stand in for one that failed
  arm -m gradledger adapt --json --epochs 1 --backend "$1" --output "$folder/adapted-$1"
}

# What a person would look at in the record of `adapt`.
adapted() {
  python3 - "$1" <<'END'
import json, sys

r = json.load(open(sys.argv[1]))
predicted, measured = r["predicted"], r["measured"]
for key in ("macs", "peak_bytes"):
    assert predicted[key] == measured[key], f"{key}: predicted {predicted[key]}, measured {measured[key]}"
assert r["steps"] == len(r["losses"]) > 0
print(f"{r['method']}, {r['steps']} steps: accuracy {r['accuracy_before']:.4f} before, {r['accuracy_after']:.4f} after; "
      f"{measured['macs']} multiply-adds and {measured['peak_bytes']} bytes of arena, as predicted")
END
}

# Two sets of kernels, one training: their losses differ by rounding only.
tiers() {
  python3 - "$folder"/adapted-{reference,fast}/adapt.json <<'END'
import json, sys

pairs = list(zip(*(json.load(open(path))["losses"] for path in sys.argv[1:]), strict=True))
worst = max(abs(a - b) / abs(a) for a, b in pairs)
assert worst < 1e-3, f"losses of the two backends differ by {worst:.1e}"
print(f"losses of {len(pairs)} steps differ by {worst:.1e} at most")
END
}

step setup last_line setup || exit 1
step versions last_line versions || exit 1
step operators last_line operators
step adapt-reference adapted adapt reference
step adapt-fast adapted adapt fast
step tiers last_line tiers
exit $failed
