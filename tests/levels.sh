#!/bin/sh
# Run a command once for each level of vector instructions below this processor's best, which a plain run tests. The
# command finds the level in BLIPLINE_TEST_CPU_ISA. With AVX-512 also run it with our own products instead of oneDNN's.
set -eu
has() {
    grep -qw "$1" /proc/cpuinfo
}
at() {
    level=$1
    shift
    echo "at cpu_isa = $level${DNNL_MAX_CPU_ISA:+, oneDNN without AVX-512}:"
    BLIPLINE_TEST_CPU_ISA=$level "$@"
}
if has avx2 && has fma; then
    at base "$@"
fi
if has avx512f && has avx512bw && has avx512dq && has avx512vl; then
    at avx2 "$@"
    export DNNL_MAX_CPU_ISA=AVX2
    at avx512 "$@"
fi
