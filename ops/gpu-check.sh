#!/bin/sh
# Checks that this machine's GPU gives right results, and measures its speed. Works on a machine without packages and
# network, with what `pack` puts into a folder.
#
#     ops/gpu-check.sh pack DIR [--thin] [--without-onednn]
#         On a machine that builds: puts programs, libraries, models, reference data and scripts into DIR.
#         --thin: without models, data and scripts, for use inside a checkout.
#         --without-onednn: 7 MB less, but nothing computes on the CPU.
#     DIR/gpu-check.sh run OUT [--only PHASES] [--seconds S] [--limit S] [--device cuda:0]
#         On the machine with the GPU; in a checkout that was built: ops/gpu-check.sh run OUT.
#
# PHASES: machine, tests, sanitizer, selftest, demo, bench, bench-t5, chain, hf, goals (default: the first five). Each
# step has a time limit; with --limit no step starts after so many seconds. The result is OUT/report.md (a line per
# step), OUT/log.txt (the steps' output) and OUT/results.jsonl (measurements). Exit code 1: a step failed. Without a GPU
# the steps that need one are skipped, unless BLIPLINE_TEST_CUDA_LIBRARY names the operators (such as the emulator's).
# Nothing is installed, and nothing about the card is changed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
self=$(basename "$0")

usage() {
    sed -n '2,16s/^# \{0,1\}//p' "$here/$self" >&2
    exit 2
}

# -- pack ------------------------------------------------------------------------------------------------------------

# Names that machines have, or that must be the machine's own: C library, driver, CUDA.
is_system() {
    case $1 in
    libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libresolv.so* | ld-linux* | libcuda.so* | \
        libcublas* | libcudart* | libnvrtc* | libnvJitLink* | libOpenCL*) return 0 ;;
    esac
    return 1
}

# A libdnnl that loads and does nothing: programs link it for their CPU side, which a check of a GPU does not use.
empty_onednn() {
    soname=$1
    for program in $programs $tests; do nm -D --undefined-only "$program"; done |
        sed -n 's/^ *U \(dnnl_[a-z0-9_]*\)\(@.*\)\{0,1\}$/\1/p' | sort -u |
        awk '{ if ($1 == "dnnl_version") print "static long version[8]; void *dnnl_version(void) { return version; }"
               else printf "int %s(void) { return 3; /* unimplemented */ }\n", $1 }' >"$tmp/onednn.c"
    gcc -shared -fPIC -o "$tmp/build/lib/$soname" -Wl,-soname,"$soname" "$tmp/onednn.c"
}

pack_programs() {
    mkdir -p "$tmp/build/lib" "$tmp/build/lib-base" "$tmp/build/tests/gpu" "$tmp/build/tests/bench"
    programs=$(ls "$O"/blipline "$O"/blipline-broker "$O"/blipline-encoder "$O"/blipline-qformer \
        "$O"/blipline-llm "$O"/tests/bench/bench_gpu) || {
        echo "gpu-check.sh: programs are missing: make gpu-check-programs" >&2
        return 1
    }
    tests=$(find "$O/tests/gpu" -maxdepth 1 -name 'test_*' -perm -u+x -type f)
    [ -n "$tests" ] || {
        echo "gpu-check.sh: no tests in $O/tests/gpu: make gpu-check-programs" >&2
        return 1
    }
    for p in $programs $tests "$O/libblipline-cuda.so"; do
        strip -o "$tmp/build/${p#"$O"/}" "$p" || return 1
    done
    for p in $programs $tests "$O/libblipline-cuda.so"; do ldd "$p"; done |
        awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
        while read -r name path; do
            is_system "$name" && continue
            case $name in
            # used only if the machine lacks them
            libstdc++* | libgcc_s* | libgomp* | libz.so* | liblzma* | libzstd*)
                cp -L "$path" "$tmp/build/lib-base/$name" ;;
            libdnnl*)
                if [ "$without_onednn" = 1 ]; then
                    empty_onednn "$name"
                else
                    cp -L "$path" "$tmp/build/lib/$name"
                fi ;;
            *) cp -L "$path" "$tmp/build/lib/$name" ;;
            esac
        done
    for l in "$tmp"/build/lib/* "$tmp"/build/lib-base/*; do strip --strip-unneeded "$l" 2>/dev/null; done
    tar -C "$tmp" -cf - build | xz -9 -T0 >"$dir/programs.tar.xz"
}

pack_data() {
    (cd "$root" && tar -cf - ops/mps.sh tests/bench/*.py models/blip2-opt-demo models/blip2-itm-demo tests/golden \
        examples/images) | xz -6 -T0 >"$dir/data.tar.xz"
}

pack() {
    [ $# -ge 1 ] || usage
    dir=$1 thin=0 without_onednn=0
    shift
    for a; do
        case $a in --thin) thin=1 ;; --without-onednn) without_onednn=1 ;; *) usage ;; esac
    done
    root=$(dirname "$here") O=${O:-$(dirname "$here")/build}
    [ -e "$O/libblipline-cuda.so" ] || {
        echo "gpu-check.sh: $O/libblipline-cuda.so is missing; run make gpu-check-programs on a machine with nvcc" >&2
        exit 1
    }
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    rm -f "$dir/data.tar.xz" "$dir/programs.tar.xz"
    pack_programs || exit 1
    cp "$here/$self" "$dir/gpu-check.sh"
    cp "$here/gpu_jobs.py" "$dir/"
    [ "$thin" = 1 ] || pack_data
    printf 'gpu-check.sh: %s: %s MB (programs and libraries %s MB)\n' "$dir" \
        "$(du -sm --apparent-size "$dir" | cut -f1)" "$(du -m --apparent-size "$dir/programs.tar.xz" | cut -f1)"
}

# -- run: where things are -------------------------------------------------------------------------------------------

# The checkout, or what was packed: root (models, data, scripts) and O (programs).
find_programs() {
    if [ -e "$here/programs.tar.xz" ]; then
        O=${TMPDIR:-/tmp}/blipline-gpu-check-$(id -u)-$(cksum <"$here/programs.tar.xz" | tr ' ' -)/build
        if [ ! -e "$O/blipline" ]; then
            mkdir -p "$(dirname "$O")/root" && unpack "$here/programs.tar.xz" "$(dirname "$O")" || exit 1
            [ ! -e "$here/data.tar.xz" ] || unpack "$here/data.tar.xz" "$(dirname "$O")/root" || exit 1
        fi
        if [ -e "$here/data.tar.xz" ]; then root=$(dirname "$O")/root; else root=$(pwd); fi
        BLIPLINE_LIBRARIES=$O/lib
        for l in "$O"/lib-base/*; do # those that the machine has too are left to it: its Python may need newer ones
            ldconfig -p 2>/dev/null | grep -q "$(basename "$l") " || { mkdir -p "$O/lib-missing" &&
                cp "$l" "$O/lib-missing/" && BLIPLINE_LIBRARIES=$O/lib:$O/lib-missing; }
        done
    else
        root=$(dirname "$here") O=${O:-$(dirname "$here")/build} BLIPLINE_LIBRARIES=
    fi
    O=$(cd "$O" && pwd) || exit 1
    for d in /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 \
        "$("$PYTHON" -c '
import nvidia.cu13, pathlib
print(pathlib.Path(list(nvidia.cu13.__path__)[0]) / "lib")' 2>/dev/null)"; do
        [ -d "$d" ] && ls "$d"/libcublasLt.so.13* >/dev/null 2>&1 && BLIPLINE_LIBRARIES=$BLIPLINE_LIBRARIES:$d && break
    done
    BLIPLINE_LIBRARIES=${BLIPLINE_LIBRARIES#:}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export O BLIPLINE_LIBRARIES
    [ -d "$root/models/blip2-opt-demo" ] || {
        echo "gpu-check.sh: no models in $root: run it in a checkout, or pack without --thin" >&2
        exit 2
    }
    cd "$root" || exit 1
}

unpack() {
    if command -v xz >/dev/null 2>&1; then
        tar -C "$2" -xJf "$1"
    else
        "$PYTHON" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$1" "$2"
    fi
}

# A Python with torch, transformers, numpy and Pillow; else one with the last two; else any.
find_python() {
    for modules in numpy,PIL,torch,transformers numpy,PIL; do
        # found, not imported: torch alone takes long on a fresh machine
        for p in ${HF_PYTHON:-} ${PYTHON:-} python3 /usr/bin/python3; do
            "$p" -c "
import importlib.util as u, sys
sys.exit(any(u.find_spec(m) is None for m in '$modules'.split(',')))" 2>/dev/null &&
                PYTHON=$(command -v "$p") && return
        done
    done
    PYTHON=$(command -v python3 || echo /usr/bin/python3)
}

# -- run: steps ------------------------------------------------------------------------------------------------------

n_failed=0 last=

record() { # phase step result seconds remark
    last=$3
    printf '| %s | %s | %s | %s | %s |\n' "$1" "$2" "$3" "$4" "$(printf '%s' "$5" | tr '\n|' ' /' | cut -c 1-200)" \
        >>"$out/report.md"
    printf '  %-8s %-34s %5ss  %s\n' "$3" "$1: $2" "$4" "$(printf '%s' "$5" | cut -c 1-150)"
    if [ "$3" = FAIL ]; then n_failed=$((n_failed + 1)); fi
}

# Nothing new is begun then.
time_is_over() { [ "$limit_s" -gt 0 ] && [ $(($(date +%s) - begin)) -ge "$limit_s" ]; }

# step PHASE NAME LIMIT MODE COMMAND...: MODE must (a timeout is a failure) or may (it is none: the tool is slow, or
# there is only so much time)
step() {
    phase=$1 name=$2 limit=$3 mode=$4
    shift 4
    if time_is_over; then
        record "$phase" "$name" skip 0 "--limit $limit_s s are over"
        : >"$out/step.txt"
        return
    fi
    start=$(date +%s)
    if [ "$is_emulated" = 1 ]; then limit=$((limit * 4)); fi
    if [ "$limit_s" -gt 0 ] && [ $((limit_s + 60 - (start - begin))) -lt "$limit" ]; then
        limit=$((limit_s + 60 - (start - begin))) mode=may
    fi
    BLIPLINE_CHECK_STEP=$$ LD_LIBRARY_PATH=$step_libraries timeout -k 15 "$limit" "$@" >"$out/step.txt" 2>&1
    rc=$?
    if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then end_leftovers; fi
    took=$(($(date +%s) - start))
    {
        printf '\n==== %s: %s (exit code %s, %s s)\n' "$phase" "$name" "$rc" "$took"
        tail -c 60000 "$out/step.txt"
    } >>"$out/log.txt"
    why=$(grep -E "FAIL|rror|skipped|Could not|cannot" "$out/step.txt" | grep -v "ERROR SUMMARY: 0 errors" | head -n 2)
    case $rc in
    0)
        if grep -q '^skipped, no GPU' "$out/step.txt"; then
            record "$phase" "$name" FAIL $took "there is a GPU, but: $why"
        elif grep -q 'left out' "$out/step.txt"; then
            record "$phase" "$name" cut $took "$(grep -c 'left out' "$out/step.txt") left out; $(remark)"
        else record "$phase" "$name" ok $took "$(remark)"; fi
        ;;
    77) record "$phase" "$name" skip $took "$(tail -n 1 "$out/step.txt")" ;;
    124 | 137)
        record "$phase" "$name" "$([ "$mode" = must ] && echo FAIL || echo cut)" $took "timed out after $limit s" ;;
    *) record "$phase" "$name" FAIL $took "exit code $rc: ${why:-$(tail -n 1 "$out/step.txt")}" ;;
    esac
}

# Daemons of a step that was cut: one that hangs in the driver looks at no signal but this one.
end_leftovers() {
    for e in /proc/[0-9]*/environ; do
        pid=${e#/proc/} pid=${pid%/environ}
        if grep -qz "^BLIPLINE_CHECK_STEP=$$\$" "$e" 2>/dev/null && [ "$pid" != $$ ]; then
            kill -9 "$pid" 2>/dev/null
        fi
    done
}

remark() {
    n=$(grep -c '^\[       OK \]' "$out/step.txt")
    skipped=$(sed -n '/listed below/d; s/^\[  SKIPPED \] //p' "$out/step.txt" | sort -u | wc -l)
    if [ "$n" -gt 0 ]; then echo "$n tests, $skipped skipped"; else tail -n 1 "$out/step.txt"; fi
}

need_gpu() { # phase step: 1 and a line where there is none
    [ "$has_gpu" = 1 ] && return 0
    record "$1" "$2" skip 0 "no GPU here: $no_gpu"
    return 1
}

# -- run: phases -----------------------------------------------------------------------------------------------------

phase_machine() {
    step_libraries=${LD_LIBRARY_PATH:-}
    [ "$is_emulated" = 1 ] || { need_gpu machine nvidia-smi && step machine nvidia-smi 60 may nvidia-smi; }
    step_libraries=$BLIPLINE_LIBRARIES
    step machine "blipline devices" 60 must "$O/blipline" devices
    # shellcheck disable=SC2016
    step machine "libraries" 30 must sh -c \
        'for p in "$@"; do
            [ -e "$p" ] || { echo "cannot find $p"; exit 1; }
            ldd "$p" | grep "not found" && exit 1
        done
        exit 0' sh "$O/blipline" "$O/blipline-llm" "$O/libblipline-cuda.so"
}

gpu_tests() { find "$O/tests/gpu" -maxdepth 1 -name 'test_*' -type f -perm -u+x | sort; }

phase_tests() {
    need_gpu tests "tests/gpu" || return
    step_libraries=$BLIPLINE_LIBRARIES
    # All at once: most of their time is the reference's, on one core each. The one that measures comes alone.
    if time_is_over; then
        record tests "tests/gpu" skip 0 "--limit $limit_s s are over"
        return
    fi
    said=$(mktemp -d)
    for t in $(gpu_tests | grep -v linear_real); do
        (
            BLIPLINE_CHECK_STEP=$$ LD_LIBRARY_PATH=$step_libraries timeout -k 15 $((is_emulated ? 1200 : 120)) "$t" \
                >"$said/$(basename "$t")" 2>&1
            echo $? >"$said/$(basename "$t").code"
        ) &
    done
    wait
    for t in $(gpu_tests); do
        n=$(basename "$t")
        # shellcheck disable=SC2016
        if [ -e "$said/$n.code" ]; then
            step tests "$n" 30 must sh -c \
                'cat "$1"; rc=$(cat "$1.code")
                case $rc in 124 | 137) echo "FAIL: timed out"; rc=1 ;; esac
                exit "$rc"' sh "$said/$n"
        else
            step tests "$n" 120 must "$t"
        fi
    done
    rm -rf "$said"
}

phase_sanitizer() {
    need_gpu sanitizer compute-sanitizer || return
    sanitizer=$(command -v compute-sanitizer)
    if [ -z "$sanitizer" ] || [ "$is_emulated" = 1 ]; then
        record sanitizer compute-sanitizer skip 0 \
            "$([ "$is_emulated" = 1 ] && echo "the emulator is no device" || echo "not installed")"
        return
    fi
    step_libraries=$BLIPLINE_LIBRARIES
    export BLIPLINE_TEST_SMALL=1
    for t in $(gpu_tests); do
        step sanitizer "memcheck $(basename "$t")" 150 may "$sanitizer" --tool memcheck --error-exitcode 9 "$t"
    done
    for t in $(gpu_tests); do
        step sanitizer "racecheck $(basename "$t")" 100 may "$sanitizer" --tool racecheck --error-exitcode 9 "$t"
    done
    unset BLIPLINE_TEST_SMALL
}

phase_selftest() {
    need_gpu selftest "blipline selftest" || return
    step_libraries=$BLIPLINE_LIBRARIES
    for dtype in fp32 bf16 fp16 fp8; do
        step selftest "selftest $dtype" 240 must "$O/blipline" selftest --device "$device" --dtype $dtype \
            --cuda-library "$library"
    done
    for golden in opt_a opt_c t5_a itm_c; do
        step selftest "$golden fp32" 180 must "$O/blipline" selftest "tests/golden/$golden" --device "$device" \
            --dtype fp32 --cuda-library "$library"
    done
}

# Captions of the example pictures, in every type; then one job with two language model workers on the card.
phase_demo() {
    need_gpu demo "demo captions" || return
    step_libraries=$BLIPLINE_LIBRARIES
    for dtype in fp32 bf16; do
        rm -rf "$out/demo.lmdb"
        step demo "captions $dtype" 180 must "$O/blipline" caption examples/images -o "$out/demo.lmdb" \
            --model models/blip2-opt-demo --device "$device" --cuda-library "$library" --dtype $dtype
        step demo "captions $dtype beside the reference's" 60 must "$PYTHON" "$jobs" captions "$O" "$out/demo.lmdb" \
            $dtype
    done
    rm -rf "$out/demo.lmdb"
    step demo "two language models on one card" 240 must "$PYTHON" "$jobs" two-workers "$O" "$out/demo.lmdb" \
        "$device" "$library" "$([ "$is_emulated" = 1 ] && echo 2 || echo 1000)"
    rm -rf "$out/demo.lmdb"
}

# What follows runs Python with libraries of its own: the packed ones are for our programs alone (BLIPLINE_LIBRARIES).
gpu_py() { # PHASE NAME LIMIT arguments
    phase=$1 name=$2 limit=$3
    shift 3
    step_libraries=${LD_LIBRARY_PATH:-}
    step "$phase" "$name" $((limit + 240)) may "$PYTHON" tests/bench/gpu.py "$@" --device "$device" \
        --cuda-library "$library" --seconds "$seconds" --limit "$limit" --patience "$((is_emulated ? 600 : 60))" \
        --json "$out/results.jsonl" --dir "$models" --scale "$scale"
    table
}

# The last step's rows belong in the report.
table() {
    [ ! -s "$out/step.txt" ] || { printf '\n```\n'; tail -n 60 "$out/step.txt"
        printf '```\n\n| phase | step | result | seconds | |\n|---|---|---|---|---|\n'; } >>"$out/report.md"
}

phase_bench() {
    need_gpu bench "opt-2.7b" || return
    gpu_py bench "opt-2.7b, ours" 420 opt-2.7b --hf none --rounds 1 --dtypes bf16,fp8 \
        --parts copy,encoder,qformer,llm,natural,natural-batches,beams \
        --batches encoder=64+256+512,qformer=256,llm=64+256+512,natural=256,natural-batches=256,beams=64
}

phase_bench_t5() {
    need_gpu bench-t5 "flan-t5-xl" || return
    gpu_py bench-t5 "flan-t5-xl, and transformers" 420 flan-t5-xl --rounds 2 \
        --parts qformer,llm,beams,chain,chain-beams --batches llm=64+256+512,beams=64,chain=64+256+512+768+1024
    chain_mps
    chain_py bench-t5 flan-t5-xl "flan-t5-xl, the daemons" --dtypes bf16 --jobs greedy --sources small
}

phase_hf() {
    need_gpu hf "transformers in turn" || return
    gpu_py hf "opt-2.7b and transformers in turn" 480 opt-2.7b --rounds 2 \
        --parts encoder,chain,qformer,llm,natural,chain-natural,chain-beams,products,products-fp8,attention \
        --batches encoder=256,chain=256+512+768+1024,chain-natural=256+768,chain-beams=64+256,llm=256
}

# What tests/bench/gpu_goals.py looks for, each once: some seven minutes.
phase_goals() {
    need_gpu goals "what is wanted" || return
    gpu_py goals "opt-2.7b and transformers in turn" 170 opt-2.7b --rounds 2 --ceiling 0 --longer encoder=10 \
        --parts encoder,chain,chain-natural \
        --batches encoder=256,chain=512+768+1024,chain-natural=256+768
    gpu_py goals "opt-2.7b, stages alone" 60 opt-2.7b --hf none --rounds 1 --ceiling 0 --longer llm=5 \
        --parts qformer,qformer-device,llm,natural,natural-batches,beams \
        --batches llm=256+512,natural=512,natural-batches=512,beams=64
    chain_mps
    chain_py goals opt-2.7b "greedy" --dtypes bf16,fp8 --jobs greedy --sources small
    chain_py goals opt-2.7b "natural ends, 5 beams" --dtypes bf16 --jobs natural,beams --sources small
    gpu_py goals "flan-t5-xl, transformers" 60 flan-t5-xl --rounds 1 --parts chain --batches chain=512+768+1024
    chain_py goals flan-t5-xl "flan-t5-xl" --dtypes bf16 --jobs greedy --sources small
    chain_py goals opt-2.7b "greedy, from JPEG" --dtypes bf16 --jobs greedy --sources jpeg
}

# MPS is tried with a copy, not with a test: what it says of the kernels is no reason to do without.
chain_mps() {
    step_libraries=${LD_LIBRARY_PATH:-}
    sh ops/mps.sh status >/dev/null 2>&1 && stop=: || stop='sh ops/mps.sh stop' # one that runs already is somebody's
    # shellcheck disable=SC2016
    step chain "a program under MPS" 60 may sh -c \
        'v=$(sh ops/mps.sh start) || exit 77
        eval "$v"; LD_LIBRARY_PATH=$BLIPLINE_LIBRARIES "$@"; rc=$?; '"$stop"'; exit $rc' \
        sh "$O/tests/bench/bench_gpu" models/blip2-opt-demo --only copy --seconds 0.2 --device "$device" \
            --cuda-library "$library"
    mps=
    [ "$last" = ok ] || { $stop >/dev/null 2>&1; mps=--no-mps; }
}

phase_chain() {
    need_gpu chain "the daemons" || return
    step_libraries=${LD_LIBRARY_PATH:-}
    if [ ! -e "$models/opt-2.7b/config.json" ]; then
        step chain "random checkpoint" 180 must "$PYTHON" tests/bench/make_checkpoint.py opt-2.7b "$models/opt-2.7b" \
            --ends 0.082 --scale "$scale"
    fi
    chain_mps
    chain_py chain opt-2.7b "greedy" --dtypes bf16,fp8 --jobs greedy --sources small,jpeg
    chain_py chain opt-2.7b "natural ends, 5 beams" --dtypes bf16 --jobs natural,beams --sources small
}

chain_py() { # PHASE MODEL NAME arguments
    phase=$1 model=$2 name=$3
    shift 3
    step_libraries=${LD_LIBRARY_PATH:-}
    # shellcheck disable=SC2086
    step "$phase" "$name" 400 may "$PYTHON" tests/bench/chain_gpu.py "$models/$model" --device "$device" \
        --cuda-library "$library" --images "$images" --limit "$((is_emulated ? 400 : 80))" \
        --stages "$out/results.jsonl" --json "$out/results.jsonl" "$@" $mps
    table
}

look_at_machine() {
    has_gpu=0 is_emulated=0
    library=${BLIPLINE_TEST_CUDA_LIBRARY:-$O/libblipline-cuda.so}
    case $library in */emulated/*) is_emulated=1 has_gpu=1 ;; esac
    if [ "$has_gpu" = 0 ]; then
        if ! command -v nvidia-smi >/dev/null 2>&1; then no_gpu="nvidia-smi is not installed"
        elif no_gpu=$(timeout 60 nvidia-smi -L 2>&1); then has_gpu=1
        else no_gpu="nvidia-smi -L: $(echo "$no_gpu" | tail -n 1)"; fi
    fi
    export BLIPLINE_TEST_CUDA_LIBRARY="$library"
}

run() {
    [ $# -ge 1 ] || usage
    out=$1 phases=machine,tests,sanitizer,selftest,demo seconds=3 limit_s=0 device=cuda:0 images=12000 scale=1
    shift
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || usage
        case $1 in
        --only) phases=$2 ;;
        --seconds) seconds=$2 ;;
        --limit) limit_s=$2 ;;
        --device) device=$2 ;;
        --images) images=$2 ;;
        --scale) scale=$2 ;; # smaller models, to try this out
        *) usage ;;
        esac
        shift 2
    done
    models=${TMPDIR:-/tmp}/blipline-gpu$([ "$scale" = 1 ] || echo "-$scale")
    mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
    begin=$(date +%s) jobs=$here/gpu_jobs.py step_libraries=
    PATH=$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin
    export PYTHONUNBUFFERED=1 # what was printed before a step is cut is kept
    find_python
    find_programs
    look_at_machine
    printf '# GPU check, %s\n\n%s\n\n| phase | step | result | seconds | |\n|---|---|---|---|---|\n' \
        "$(date -u +%FT%TZ)" "$([ $has_gpu = 1 ] && nvidia-smi -L 2>/dev/null || echo "no GPU")" >"$out/report.md"
    : >"$out/log.txt"
    for phase in $(echo "$phases" | tr ',' ' '); do
        case $phase in
        machine | tests | sanitizer | selftest | demo | bench | chain | hf | goals) "phase_$phase" ;;
        bench-t5) phase_bench_t5 ;;
        *) usage ;;
        esac
    done
    rm -f "$out/step.txt"
    if [ -s "$out/results.jsonl" ]; then
        { printf '\nWhat is wanted (best batch, median of the rounds):\n```\n' &&
            "$PYTHON" tests/bench/gpu_goals.py "$out/results.jsonl" 2>&1 && printf '```\n'; } | tee -a "$out/report.md"
    fi
    printf '\n%s failed, %s s in all\n' "$n_failed" "$(($(date +%s) - begin))" | tee -a "$out/report.md"
    [ "$n_failed" = 0 ]
}

case ${1:-} in
pack) shift && pack "$@" ;;
run) shift && run "$@" ;;
*) usage ;;
esac
