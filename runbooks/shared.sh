# shellcheck shell=bash
# What the scripts beside this file share: calls with grpcurl, waiting, and the table of what was measured.
#
# NODES    the servers of the cluster, HOST:PORT each; those of `cargo xtask demo` if not given
# GRPCURL  grpcurl, if it is not in the search path
set -euo pipefail

GRPCURL=${GRPCURL:-grpcurl}
read -ra NODES <<<"${NODES:-127.0.0.1:50051 127.0.0.1:50061 127.0.0.1:50071}"
ROWS=()
MADE=()

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# call NODE METHOD [JSON]; the answer is JSON, every field on a line of its own.
call() {
    if [[ -n ${3:-} ]]; then
        "$GRPCURL" -plaintext -max-time 120 -d "$3" "$1" "plasmavmc.$2"
    else
        "$GRPCURL" -plaintext -max-time 120 "$1" "plasmavmc.$2"
    fi
}

# field NAME: its value in an answer, where it is no object and not inside of one.
field() {
    sed -nE 's/^  "'"$1"'": "?([^"]*[^",])"?,?$/\1/p' | head -n 1
}

now() { date +%s%3N; }

# measured WHAT BEGUN: a row of the table.
measured() {
    local took=$(($(now) - $2))
    local row
    row=$(printf '| %s | %d.%03d s |' "$1" $((took / 1000)) $((took % 1000)))
    ROWS+=("$row")
    echo "$row"
}

# until_true WHAT SECONDS COMMAND...: looks again and again, until the deadline.
until_true() {
    local what=$1 end=$(($(now) + $2 * 1000))
    shift 2
    until "$@"; do
        (($(now) < end)) || fail "$what: not in time"
        sleep 0.02
    done
}

# create NODE JSON: prints the id of the VM, which ends with the script.
create() {
    local answer
    answer=$(call "$1" VmService/CreateVm "$2") || fail "$1 did not create $2"
    field id <<<"$answer"
}

vm_field() { call "$1" VmService/GetVm "{\"id\":\"$2\"}" 2>/dev/null | field "$3"; }
is_in_state() { [[ $(vm_field "$1" "$2" state) == "$3" ]]; }
qemu_of() { pgrep -f "qemu.*$1"; }
host_of() { call "$1" ClusterService/Status | field answeredBy; }

# The server that listens there, if it runs on this machine.
server_of() { pgrep -f "plasmavmc-server.*--listen ${1//./\\.}( |$)" || fail "no server on this machine was started with --listen $1"; }

# No VM of this script stays behind, however it ends.
clean_up() {
    local status=$? id node
    set +e
    for id in "${MADE[@]}"; do
        for node in "${NODES[@]}"; do
            call "$node" VmService/DeleteVm "{\"id\":\"$id\",\"force\":true,\"wait\":true}" >/dev/null 2>&1 && break
        done
    done
    exit "$status"
}
trap clean_up EXIT

# The last thing a script prints: what was measured, as the tables in the runbooks have it.
table() {
    echo
    echo "| what | took |"
    echo "|---|---|"
    printf '%s\n' "${ROWS[@]}"
}
