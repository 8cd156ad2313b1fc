#!/bin/sh
# NVIDIA's Multi-Process Service for daemons that share a card: ops/mps.sh start | stop | status
# docs/gpu.md says why and when.
#
#     eval "$(ops/mps.sh start)"      start it unless it runs; set the two variables by which CUDA programs find it
#     ops/mps.sh status               exit with 0 if it answers
#     ops/mps.sh stop                 end it when the programs that use it have ended, or after 30 s
#
# Any user may run it. The service belongs to that user and has a folder of its own (MPS_DIR, default
# /tmp/blipline-mps-UID). If CUDA_MPS_PIPE_DIRECTORY is set, it says which service is meant. Nothing about the card is
# changed, not even its compute mode.
set -eu
dir=${MPS_DIR:-/tmp/blipline-mps-$(id -u)}
pipe=${CUDA_MPS_PIPE_DIRECTORY:-$dir/pipe}
log=${CUDA_MPS_LOG_DIRECTORY:-$dir/log}
export CUDA_MPS_PIPE_DIRECTORY="$pipe" CUDA_MPS_LOG_DIRECTORY="$log"
control=${MPS_CONTROL:-nvidia-cuda-mps-control}

say() { echo "mps.sh: $*" >&2; }

# The answer of the service to a command; nothing if none listens at the pipe. Its client waits for ever if it hangs.
ask() { [ -e "$pipe/control" ] && echo "$1" | timeout "${2:-5}" "$control" 2>/dev/null; }

is_running() { ask get_default_active_thread_percentage >/dev/null; }

need_control() {
    command -v "$control" >/dev/null 2>&1 && return
    say "nvidia-cuda-mps-control is not installed; it comes with NVIDIA's driver (nvidia-compute-utils or similar)"
    say "without MPS the daemons take turns on the card"
    exit 2
}

start() {
    need_control
    if [ ${#pipe} -gt 90 ]; then
        say "$pipe is too long for a socket; set MPS_DIR to a shorter path"
        exit 2
    fi
    if is_running; then
        say "already running at $pipe"
    else
        (umask 077 && mkdir -p "$pipe" "$log")
        if ! timeout 20 "$control" -d >"$log/start.txt" 2>&1; then
            say "cannot start: $(tr '\n' ' ' <"$log/start.txt")"
            exit 1
        fi
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            is_running && break
            sleep 0.5
        done
        is_running || { say "started but does not answer; see $log"; exit 1; }
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
        say "still running at $pipe: programs are using it"
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
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
