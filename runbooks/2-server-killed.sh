#!/usr/bin/env bash
# Scenarios 2 and 3: each server in turn is killed and started again. See 2-server-killed.md and
# 3-server-restarted.md. Takes servers that run on this machine.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

is_told_as() { [[ $(vm_field "$1" "$2" state) == "$3" && $(vm_field "$1" "$2" pid) == "$4" ]]; }

for node in "${NODES[@]}"; do
    host=$(host_of "$node")
    server=$(server_of "$node")
    mapfile -d '' command <"/proc/$server/cmdline"
    others=()
    for other in "${NODES[@]}"; do [[ $other == "$node" ]] || others+=("$other"); done

    name=runbook-2-$host
    id=$(create "$node" "{\"name\":\"$name\",\"vcpus\":1,\"memory_mb\":512,\"wait\":true,\"affinity\":{\"hosts\":[\"$host\"]}}")
    MADE+=("$id")
    qemu=$(qemu_of "$id")

    kill -9 "$server"
    killed=$(now)
    for other in "${others[@]}"; do
        until_true "$other answers" 30 call "$other" VmService/GetVm "{\"id\":\"$id\"}" >/dev/null 2>&1
    done
    measured "server of $host killed, until all others answer for its VM" "$killed"
    until_true "its VM is told as unknown" 30 is_in_state "${others[0]}" "$id" UNKNOWN
    measured "server of $host killed, until its VM is told as unknown" "$killed"
    [[ $(qemu_of "$id") == "$qemu" ]] || fail "the QEMU of $name did not run on"

    started=$(now)
    setsid "${command[@]}" </dev/null >>"${LOG:-/dev/null}" 2>&1 &
    until_true "the VM is adopted" 30 is_told_as "$node" "$id" RUNNING "$qemu"
    measured "server of $host started again, until it has adopted its VM" "$started"
    [[ $(qemu_of "$id") == "$qemu" ]] || fail "$name has another QEMU"
    # Adopted, not merely believed in: it obeys.
    call "${others[0]}" VmService/PauseVm "{\"id\":\"$id\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not pause"
    is_in_state "$node" "$id" PAUSED || fail "it is not paused"
done
table
