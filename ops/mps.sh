#!/bin/sh
# NVIDIA's Multi-Process Service for the daemons that share a card: ops/mps.sh start | stop | status   (docs/gpu.md says why and when)
#
#     eval "$(ops/mps.sh start)"      starts it, if it is not there, and sets the two variables by which CUDA programs find it
#     ops/mps.sh status               exit code 0: it answers
#     ops/mps.sh stop                 it ends when the programs that use it have; after 30 s they lose it
#
# Any user may; the service belongs to that user, in a folder of its own (MPS_DIR, default /tmp/blipline-mps-UID), beside any other one. Nothing about
# the card is changed: neither its compute mode nor anything else. CUDA_MPS_PIPE_DIRECTORY, where it is set already, says which service is meant.
set -eu
dir=${MPS_DIR:-/tmp/blipline-mps-$(id -u)}
pipe=${CUDA_MPS_PIPE_DIRECTORY:-$dir/pipe}
log=${CUDA_MPS_LOG_DIRECTORY:-$dir/log}
export CUDA_MPS_PIPE_DIRECTORY="$pipe" CUDA_MPS_LOG_DIRECTORY="$log"
control=${MPS_CONTROL:-nvidia-cuda-mps-control}

say() { echo "mps.sh: $*" >&2; }

# Its answer to a command; nothing where no service listens at the pipe. Its client waits for ever for one that hangs.
ask() { [ -e "$pipe/control" ] && echo "$1" | timeout "${2:-5}" "$control" 2>/dev/null; }

is_running() { ask get_default_active_thread_percentage >/dev/null; }

need_control() {
    command -v "$control" >/dev/null 2>&1 && return
    say "nvidia-cuda-mps-control is not installed (it comes with NVIDIA's driver: package nvidia-compute-utils or the like); without MPS the daemons take turns on the card"
    exit 2
}

start() {
    need_control
    if [ ${#pipe} -gt 90 ]; then
        say "$pipe: too long for a socket; set MPS_DIR to a shorter folder"
        exit 2
    fi
    if is_running; then
        say "already running at $pipe"
    else
        (umask 077 && mkdir -p "$pipe" "$log")
        if ! timeout 20 "$control" -d >"$log/start.txt" 2>&1; then
            say "could not be started: $(tr '\n' ' ' <"$log/start.txt")"
            exit 1
        fi
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            is_running && break
            sleep 0.5
        done
        is_running || { say "started, but does not answer; see $log"; exit 1; }
        say "running at $pipe, logs in $log"
    fi
    printf 'export CUDA_MPS_PIPE_DIRECTORY=%s CUDA_MPS_LOG_DIRECTORY=%s\n' "'$pipe'" "'$log'"
}

stop() {
    if ! is_running; then
        say "not running at $pipe"
        return
    fi
    ask "quit -t 30" 45 >/dev/null || true
    if is_running; then
        say "still running at $pipe: programs use it"
        exit 1
    fi
    say "stopped"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status)
    is_running || { say "not running at $pipe"; exit 1; }
    say "running at $pipe; servers: $(ask get_server_list | tr '\n' ' ')"
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
