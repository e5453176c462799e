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
# Servers that a script ended, processes that it stopped, and what else has to be undone at its end.
ENDED=()
STOPPED=()
KEPT=$(mktemp -d)

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
is_host_in_state() { [[ $(call "$1" HostService/GetHost "{\"id\":\"$2\"}" 2>/dev/null | field state) == "$3" ]]; }
qemu_of() { pgrep -f "qemu.*$1"; }
host_of() { call "$1" ClusterService/Status | field answeredBy; }

# others NODE: all servers but that one, in order.
others() {
    local node
    for node in "${NODES[@]}"; do [[ $node == "$1" ]] || echo "$node"; done
}

# leader_of NODE: the name of the host whose server leads, as that one says.
leader_of() { call "$1" ClusterService/Status 2>/dev/null | field leader; }
leads() { [[ -n $(leader_of "$1") ]]; }

# node_of HOST: where its server listens.
node_of() {
    local node
    for node in "${NODES[@]}"; do
        [[ $(host_of "$node") != "$1" ]] || echo "$node"
    done
}

# VOTERS: if more vote than run VMs.
votes() { [[ $(call "$1" ClusterService/Status 2>/dev/null | grep -cE '"role": "(leader|voter)"') == "${VOTERS:-${#NODES[@]}}" ]]; }
is_whole() { [[ $(call "$1" ClusterService/Status 2>/dev/null | field hostsAlive) == "${#NODES[@]}" ]] && votes "$1"; }
until_whole() { until_true "all hosts are alive, and vote" 60 is_whole "$1"; }

# leased_on NODE NAME: creates a VM that may be started elsewhere, on the host of that server, and prints its id. The
# others take nothing meanwhile: nothing binds the VM to its host afterwards.
leased_on() {
    local id other host
    until_whole "$1"
    for other in $(others "$1"); do
        host=$(host_of "$other")
        call "$1" HostService/DrainHost "{\"id\":\"$host\"}" >/dev/null
        echo "$host" >>"$KEPT/drained"
    done
    id=$(create "$1" "{\"name\":\"$2\",\"vcpus\":1,\"memory_mb\":64,\"agent\":\"AGENT_POLICY_NONE\",\"wait\":true}")
    activate "$1"
    [[ $(vm_field "$1" "$id" leased) == true ]] || fail "$2 is not leased"
    echo "$id"
}

# Lets all hosts that were drained take VMs again.
activate() {
    local host
    [[ -e $KEPT/drained ]] || return 0
    while read -r host; do
        call "$1" HostService/ActivateHost "{\"id\":\"$host\"}" >/dev/null
    done <"$KEPT/drained"
    rm "$KEPT/drained"
}

# pinned_on NODE NAME: the same for one that is never started elsewhere.
pinned_on() {
    create "$1" "{\"name\":\"$2\",\"vcpus\":1,\"memory_mb\":64,\"agent\":\"AGENT_POLICY_NONE\",\"wait\":true,\"ha\":\"HA_POLICY_OFF\",\"affinity\":{\"hosts\":[\"$(host_of "$1")\"]}}"
}

# lease_on_each PREFIX: a leased VM on every host: their ids in `leased`, their processes in `qemus`.
lease_on_each() {
    local node id
    leased=()
    qemus=()
    for node in "${NODES[@]}"; do
        id=$(leased_on "$node" "$1-$(host_of "$node")")
        MADE+=("$id")
        leased+=("$id")
        qemus+=("$(qemu_of "$id")")
    done
}

# What the kernel says of a process: T is stopped, Z has ended. Nothing if it is gone.
state_of() { sed -E 's/^.*\) (.).*$/\1/' "/proc/$1/stat" 2>/dev/null || true; }
stands_still() { [[ $(state_of "$1") == T ]]; }
executes() { [[ $(state_of "$1") == [RSD] ]]; }
is_gone() { [[ ! -e /proc/$1 ]]; }
# Its first thread is a zombie while another may still write to the disk, with all that it had open.
has_ended() { is_gone "$1" || [[ $(state_of "$1") == Z && $(threads_of "$1") -le 1 ]]; }
threads_of() { find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }

# has_passed SINCE MS
has_passed() { (($(now) - $1 >= $2)); }

# runs_elsewhere NODE ID HOST: it runs, and not there; and at most one QEMU of it executes.
runs_elsewhere() {
    local answer host qemu executing=0
    for qemu in $(qemu_of "$2"); do
        if executes "$qemu"; then executing=$((executing + 1)); fi
    done
    ((executing <= 1)) || fail "$executing QEMUs execute VM $2"
    answer=$(call "$1" VmService/GetVm "{\"id\":\"$2\"}" 2>/dev/null) || return 1
    host=$(field host <<<"$answer")
    [[ $(field state <<<"$answer") == RUNNING && -n $host && $host != "$3" ]]
}

# The server that listens there, if it runs on this machine.
server_of() { pgrep -f "plasmavmc-server.*--listen ${1//./\\.}( |$)" || fail "no server on this machine was started with --listen $1"; }

# argument COMMANDLINE NAME: what a program was started with, as the kernel has it or as it was kept.
argument() { tr '\0' '\n' <"$1" | sed -n "/^$2\$/{n;p}"; }

# keep_command NODE: so that its server can be started again as it was, with the log that it had.
keep_command() {
    local server log
    server=$(server_of "$1")
    cat "/proc/$server/cmdline" >"$KEPT/$1"
    # That of somebody else's process cannot be seen.
    log=$(readlink "/proc/$server/fd/2" || true)
    [[ -f $log ]] || log=/dev/null
    echo "$log" >"$KEPT/$1.log"
}

# kill_server NODE: the server alone. Until it has ended it keeps its folder, and its successor waits for that.
kill_server() {
    local server
    server=$(server_of "$1")
    keep_command "$1"
    ENDED+=("$1")
    kill -9 "$server"
    until_true "server $server has ended" 10 has_ended "$server"
}

start_server() {
    local command node left=()
    mapfile -d '' command <"$KEPT/$1"
    setsid "${command[@]}" </dev/null >>"$(cat "$KEPT/$1.log")" 2>&1 &
    disown
    for node in "${ENDED[@]}"; do [[ $node == "$1" ]] || left+=("$node"); done
    ENDED=("${left[@]}")
}

stop_server() {
    local server
    server=$(server_of "$1")
    STOPPED+=("$server")
    kill -STOP "$server"
}

continue_servers() {
    ((${#STOPPED[@]} == 0)) || kill -CONT "${STOPPED[@]}"
    STOPPED=()
}

# processes_of FOLDER: all of the host whose server was started with this --dir. Server and guard name it, QEMU works
# in it.
processes_of() {
    {
        # Processes come and go meanwhile: that is no failure.
        find /proc -mindepth 2 -maxdepth 2 -name cwd -lname "$(realpath "$1")/*" 2>/dev/null || true
        # shellcheck disable=SC2062 # the pattern comes from the input
        grep -lsF --file=- /proc/[0-9]*/cmdline <<<"$1" || true
    } | cut -d/ -f3 | sort -u | while read -r pid; do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in plasmavmc* | qemu-*) echo "$pid" ;; esac
    done
}

# lose_power NODE...: what a power cut leaves of a host: nothing that runs. Server, guard and QEMUs are killed at once,
# at LOST_AT.
lose_power() {
    local node found pids=() pid folders=() folder
    for node in "$@"; do
        keep_command "$node"
        folder=$(argument "$KEPT/$node" --dir)
        [[ -n $folder ]] || fail "the server at $node was not started with --dir"
        folders+=("$folder")
        mapfile -t found < <(processes_of "$folder")
        pids+=("${found[@]}")
    done
    ENDED+=("$@")
    # shellcheck disable=SC2034 # for the script
    LOST_AT=$(now)
    # Some may have ended by themselves.
    kill -9 "${pids[@]}" 2>/dev/null || true
    for folder in "${folders[@]}"; do
        until_true "the host in $folder is dead" 10 has_none "$folder"
    done
    for pid in "${pids[@]}"; do
        until_true "process $pid of it has ended" 10 has_ended "$pid"
    done
}

# Whatever was just being started by one that was killed.
has_none() {
    local found
    mapfile -t found < <(processes_of "$1")
    ((${#found[@]} > 0)) || return 0
    kill -9 "${found[@]}" 2>/dev/null || true
    return 1
}

# For whoever has to find out why one did not come back.
last_words() {
    local log
    for log in "$KEPT"/*.log; do
        [[ -f $log && -f $(cat "$log") ]] || continue
        echo "--- last words of the server at $(basename "$log" .log)"
        tail -n 15 "$(cat "$log")"
    done >&2
}

# Nothing of this script stays behind, however it ends.
clean_up() {
    local status=$? id node
    set +e
    ((status == 0)) || last_words
    continue_servers
    for node in "${ENDED[@]}"; do start_server "$node"; done
    ((status == 0)) || for node in "${NODES[@]}"; do (until_whole "$node"); done
    activate "${NODES[0]}"
    for id in "${MADE[@]}"; do
        for node in "${NODES[@]}"; do
            call "$node" VmService/DeleteVm "{\"id\":\"$id\",\"force\":true,\"wait\":true}" >/dev/null 2>&1 && break
        done
    done
    rm -rf "$KEPT"
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
