#!/usr/bin/env bash
# Scenario 8: all hosts lose their power and come back. See the .md of the same name. Takes servers that run on this
# machine: everything of all of them is killed at once.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

all_run() {
    local id qemu
    for id in "${leased[@]}" "$pinned"; do
        qemu=$(qemu_of "$id") || return 1
        [[ $(vm_field "$1" "$id" state) == RUNNING && $(vm_field "$1" "$id" pid) == "$qemu" ]] || return 1
    done
}

until_whole "${NODES[0]}"
lease_on_each runbook-8-leased
pinned=$(pinned_on "${NODES[0]}" runbook-8-pinned)
MADE+=("$pinned")
off=$(create "${NODES[0]}" '{"name":"runbook-8-off","vcpus":1,"memory_mb":64,"powered_off":true}')
MADE+=("$off")

lose_power "${NODES[@]}"
back=$(now)
for node in "${NODES[@]}"; do start_server "$node"; done
until_true "a leader" 60 leads "${NODES[0]}"
measured "power is back, until a server leads" "$back"
until_true "everything wanted runs" 120 all_run "${NODES[0]}"
measured "power is back, until all that is wanted on runs" "$back"
until_whole "${NODES[0]}"
for id in "${leased[@]}" "$pinned"; do
    [[ $(qemu_of "$id" | wc -l) == 1 ]] || fail "VM $id has not one QEMU"
done
is_in_state "${NODES[0]}" "$off" STOPPED || fail "what was off is $(vm_field "${NODES[0]}" "$off" state)"
table
