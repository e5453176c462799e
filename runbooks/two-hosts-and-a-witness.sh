#!/usr/bin/env bash
# Two hosts and a witness, each of which is lost in turn. See the .md of the same name. Makes a cluster of its own on this
# machine; no other one is touched.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"
. "$(dirname "$0")/own-cluster.sh"

warns() { call "$1" ClusterService/Status 2>/dev/null | grep -q 'witness h3 does not answer'; }
goes_on() { executes "$qemu" && [[ $(vm_field "$1" "$vm" qemuState) == running ]]; }

found_cluster --witness
witness=${NODES[2]}
# All three vote, and two of them run VMs.
VOTERS=3
NODES=("${NODES[0]}" "${NODES[1]}")
until_whole "${NODES[0]}"
call "${NODES[0]}" HostService/DrainHost '{"id":"h3"}' >/dev/null 2>&1 && fail "a witness was drained"
vm=$(leased_on "${NODES[0]}" wanderer)
qemu=$(qemu_of "$vm")

lose_power "$witness"
until_true "the loss of the witness is told" 30 warns "${NODES[0]}"
measured "witness lost, until cluster status warns" "$LOST_AT"
# Longer than a host is waited for.
until_true "the time after which hosts are given up" 30 has_passed "$LOST_AT" 8000
executes "$qemu" || fail "the VM was frozen though the hosts are a majority"
start_server "$witness"
until_whole "${NODES[0]}"

for index in 0 1; do
    node=${NODES[$index]}
    other=${NODES[$((1 - index))]}
    host=$(host_of "$node")
    [[ $(vm_field "$node" "$vm" host) == "$host" ]] || fail "the VM is not on $host"
    lose_power "$node"
    until_true "the VM runs on the other host" 30 runs_elsewhere "$other" "$vm" "$host"
    measured "$host lost, until its VM runs on the only other host" "$LOST_AT"
    start_server "$node"
    until_whole "$other"
done

qemu=$(qemu_of "$vm")
lose_power "$witness"
until_true "the loss of the witness is told" 30 warns "${NODES[0]}"
executes "$qemu" || fail "the VM was frozen by the loss of one"
second=$(now)
kill_server "${NODES[1]}"
until_true "what is leased is frozen" 30 stands_still "$qemu"
measured "a second one lost, until what is leased is frozen" "$second"
back=$(now)
start_server "$witness"
until_true "the VM goes on" 60 goes_on "${NODES[0]}"
measured "the witness back, until the VM goes on, the same process" "$back"
start_server "${NODES[1]}"
until_whole "${NODES[0]}"
[[ $(qemu_of "$vm") == "$qemu" ]] || fail "there are other QEMUs than before"
table
