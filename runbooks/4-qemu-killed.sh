#!/usr/bin/env bash
# Scenario 4: the QEMU of a VM dies. See the .md of the same name.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

has_left() { [[ $(vm_field "$1" "$2" state) != RUNNING || $(vm_field "$1" "$2" pid) != "$3" ]]; }
runs_again() {
    local qemu
    qemu=$(qemu_of "$2") || return 1
    [[ $qemu != "$3" && $(vm_field "$1" "$2" pid) == "$qemu" && $(vm_field "$1" "$2" state) == RUNNING ]]
}

for node in "${NODES[@]}"; do
    host=$(host_of "$node")
    name=runbook-4-$host
    id=$(create "$node" "{\"name\":\"$name\",\"vcpus\":1,\"memory_mb\":512,\"wait\":true,\"affinity\":{\"hosts\":[\"$host\"]},\"restart\":{\"tries\":1,\"window_s\":600}}")
    MADE+=("$id")
    qemu=$(qemu_of "$id")
    kill -9 "$qemu"
    killed=$(now)
    until_true "the VM leaves RUNNING" 30 has_left "$node" "$id" "$qemu"
    measured "QEMU killed on $host, until $node says so" "$killed"
    until_true "it is started again" 60 runs_again "$node" "$id" "$qemu"
    measured "QEMU killed on $host, until it was started again" "$killed"

    # Its policy allows one restart.
    kill -9 "$(qemu_of "$id")"
    killed=$(now)
    until_true "it is given up on" 60 is_in_state "$node" "$id" FAILED
    measured "QEMU killed on $host once more, until the VM is given up on" "$killed"
    echo "   $(vm_field "$node" "$id" reason)"
    ! qemu_of "$id" >/dev/null || fail "a QEMU of $name is left"
    call "$node" VmService/StartVm "{\"id\":\"$id\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not start"
done

# One that any host may run is tried on another one.
node=${NODES[0]}
until_whole "$node"
id=$(create "$node" '{"name":"runbook-4-anywhere","vcpus":1,"memory_mb":64,"wait":true,"restart":{"tries":1,"window_s":600}}')
MADE+=("$id")
host=$(vm_field "$node" "$id" host)
qemu=$(qemu_of "$id")
kill -9 "$qemu"
until_true "it is started again" 60 runs_again "$node" "$id" "$qemu"
kill -9 "$(qemu_of "$id")"
killed=$(now)
until_true "it is tried elsewhere" 60 runs_elsewhere "$node" "$id" "$host"
measured "QEMU killed once more of a VM that is bound to no host, until it runs on another one" "$killed"
table
