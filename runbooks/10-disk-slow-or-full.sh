#!/usr/bin/env bash
# Scenario 10: the disk under the server that leads is full. See the .md of the same name. Makes a cluster of its own on
# this machine, with a small disk for each server: that takes root. No other cluster is touched.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"
. "$(dirname "$0")/own-cluster.sh"
DISK_MB=160

another_leads() {
    local now_leads
    now_leads=$(leader_of "$1")
    [[ -n $now_leads && $now_leads != "$2" ]]
}
# A call that falls into the election is refused, and what was asked before is not made twice.
is_created() { answer=$(call "$1" VmService/CreateVm "$2" 2>/dev/null); }

found_cluster
until_whole "${NODES[0]}"
host=$(leader_of "${NODES[0]}")
full=$(node_of "$host")
mapfile -t roomy < <(others "$full")
kept=$(pinned_on "$full" kept)
qemu=$(qemu_of "$kept")

begun=$(now)
# Ends when there is no room for more.
! dd if=/dev/zero of="$(folder_of "$full")/filler" bs=1M status=none 2>/dev/null || fail "the disk takes everything"
until_true "another host leads" 30 another_leads "${roomy[0]}" "$host"
measured "the disk of the leader is filled, until another host leads" "$begun"
on_roomy="{\"hosts\":[\"$(host_of "${roomy[0]}")\",\"$(host_of "${roomy[1]}")\"]}"
until_true "a VM is accepted" 30 is_created "${roomy[0]}" \
    "{\"name\":\"new\",\"vcpus\":1,\"memory_mb\":64,\"agent\":\"AGENT_POLICY_NONE\",\"affinity\":$on_roomy,\"request_id\":\"new\"}"
until_true "it runs" 30 is_in_state "${roomy[0]}" "$(field id <<<"$answer")" RUNNING
measured "the disk of the leader is filled, until a new VM runs elsewhere" "$begun"
executes "$qemu" || fail "a VM was touched by a disk without room"

begun=$(now)
rm "$(folder_of "$full")/filler"
until_whole "$full"
until_true "it is as before" 30 is_in_state "$full" "$kept" RUNNING
measured "room is made, until all is as before" "$begun"
[[ $(qemu_of "$kept") == "$qemu" ]] || fail "there are other QEMUs than before"
table
