set -euo pipefail
# A daemon of the page: `artel serve` of the text, in the background, on a free port.
daemon=
stop_daemon() {
    [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null; } || true
    daemon=
}
trap stop_daemon EXIT
artel() {
    if [ "${1-}" != serve ]; then
        command artel "$@"
        return
    fi
    shift
    stop_daemon
    local arguments=() ready
    while [ $# -gt 0 ]; do
        case $1 in
        --listen) shift ;;
        *) arguments+=("$1") ;;
        esac
        shift
    done
    rm -f "$HOME/.ready"
    mkfifo "$HOME/.ready"
    command artel serve --json --listen 127.0.0.1:0 ${arguments[@]+"${arguments[@]}"} >"$HOME/.ready" 2>"$HOME/.serve.log" &
    daemon=$!
    # Its first line says where it listens; none comes if it ends.
    read -r -t 60 ready <"$HOME/.ready" || { cat "$HOME/.serve.log" >&2; return 1; }
    ready=${ready#*\"listening\":\"}
    export ARTEL_ADDRESS=http://${ready%%\"*}
}
# As the text has it: the daemon's address is the default one there, and an answer that is an error is a failure.
curl() {
    command curl -fsS "${@//http:\/\/127.0.0.1:7430/$ARTEL_ADDRESS}"
}
set -x
