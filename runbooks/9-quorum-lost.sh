#!/usr/bin/env bash
# Scenario 9: two of three servers are gone, and come back. See the .md of the same name. Takes servers that run on this
# machine; their guards and their QEMUs stay.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

refuses() {
    local said
    ! said=$(call "$1" VmService/PauseVm "{\"id\":\"$2\"}" 2>&1) && grep -q 'no quorum' <<<"$said"
}
all_frozen() {
    local qemu
    for qemu in "${qemus[@]}"; do stands_still "$qemu" || return 1; done
}
all_go_on() {
    local index
    for index in "${!leased[@]}"; do
        executes "${qemus[$index]}" || return 1
        [[ $(vm_field "$1" "${leased[$index]}" qemuState) == running ]] || return 1
    done
}

until_whole "${NODES[0]}"
survivor=${NODES[0]}
lease_on_each runbook-9-leased
pinned=$(pinned_on "$survivor" runbook-9-pinned)
MADE+=("$pinned")
of_pinned=$(qemu_of "$pinned")

mapfile -t gone < <(others "$survivor")
for node in "${gone[@]}"; do kill_server "$node"; done
lost=$(now)
until_true "all leased VMs are frozen" 30 all_frozen
measured "two of three servers gone, until all leased VMs are frozen" "$lost"
asked=$(now)
refuses "$survivor" "$pinned" || fail "a change was not refused without a majority"
measured "a change is asked for meanwhile, until it is refused" "$asked"
executes "$of_pinned" || fail "the VM with ha off does not execute"
# Longer than a host is waited for: nobody may decide that these are dead.
until_true "the time after which hosts are given up" 30 has_passed "$lost" 8000
all_frozen || fail "something was moved or thawed without a majority"

back=$(now)
for node in "${gone[@]}"; do start_server "$node"; done
until_true "a leader" 60 leads "$survivor"
measured "servers started again, until one leads" "$back"
until_true "all VMs go on" 60 all_go_on "$survivor"
measured "servers started again, until all VMs go on, the same processes" "$back"
until_whole "$survivor"
executes "$of_pinned" || fail "the VM with ha off did not run on"
table
