#!/usr/bin/env bash
# Scenarios 2 and 3: each server in turn is killed and started again, first at once, then after its host was given up.
# See 2-server-killed.md and 3-server-restarted.md. Takes servers that run on this machine.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

is_told_as() { [[ $(vm_field "$1" "$2" state) == "$3" && $(vm_field "$1" "$2" pid) == "$4" ]]; }

for node in "${NODES[@]}"; do
    host=$(host_of "$node")
    mapfile -t others < <(others "$node")
    pinned=$(pinned_on "$node" "runbook-2-pinned-$host")
    MADE+=("$pinned")
    leased=$(leased_on "$node" "runbook-2-leased-$host")
    MADE+=("$leased")
    of_pinned=$(qemu_of "$pinned")
    of_leased=$(qemu_of "$leased")

    # Back before the lease is over.
    kill_server "$node"
    killed=$(now)
    start_server "$node"
    until_true "the leased VM is adopted" 30 is_told_as "$node" "$leased" RUNNING "$of_leased"
    until_true "the other VM is adopted" 30 is_told_as "$node" "$pinned" RUNNING "$of_pinned"
    measured "server of $host killed and started at once, until it has adopted both VMs" "$killed"
    executes "$of_leased" || fail "the leased VM was frozen"
    # Adopted, not merely believed in: it obeys.
    call "${others[0]}" VmService/PauseVm "{\"id\":\"$leased\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not pause"
    call "${others[0]}" VmService/ResumeVm "{\"id\":\"$leased\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not resume"

    # For longer.
    kill_server "$node"
    killed=$(now)
    for other in "${others[@]}"; do
        until_true "$other answers" 30 call "$other" VmService/GetVm "{\"id\":\"$pinned\"}" >/dev/null 2>&1
    done
    measured "server of $host killed, until all others answer for its VMs" "$killed"
    until_true "the leased VM is frozen" 30 stands_still "$of_leased"
    measured "server of $host killed, until its leased VM is frozen" "$killed"
    until_true "the leased VM runs elsewhere" 30 runs_elsewhere "${others[0]}" "$leased" "$host"
    measured "server of $host killed, until its leased VM runs elsewhere" "$killed"
    until_true "the other VM is told as unknown" 30 is_in_state "${others[0]}" "$pinned" UNKNOWN
    executes "$of_pinned" || fail "the VM with ha off did not run on"

    started=$(now)
    start_server "$node"
    until_true "the VM that stayed is adopted" 30 is_told_as "$node" "$pinned" RUNNING "$of_pinned"
    measured "server of $host started again, until it has adopted the VM that stayed" "$started"
    until_true "what was moved is killed" 30 is_gone "$of_leased"
    measured "server of $host started again, until it has killed what was moved" "$started"
    runs_elsewhere "$node" "$leased" "$host" || fail "the VM that was moved does not run"
    call "${others[0]}" VmService/PauseVm "{\"id\":\"$pinned\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not pause"
done
table
