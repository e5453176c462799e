#!/usr/bin/env bash
# Scenario 1: a VM is created through any node, and is seen alike from all. See the .md of the same name.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

for node in "${NODES[@]}"; do
    name=runbook-1-${node//[.:]/-}
    begun=$(now)
    id=$(create "$node" "{\"name\":\"$name\",\"vcpus\":1,\"memory_mb\":512,\"wait\":true}")
    MADE+=("$id")
    measured "created through $node, until it runs" "$begun"
    for other in "${NODES[@]}"; do
        is_in_state "$other" "$id" RUNNING || fail "$other does not say that $name runs"
        host=$(vm_field "$other" "$id" host)
        [[ -n $host ]] || fail "$other does not say where $name runs"
        call "$other" VmService/ListVms | grep -q "\"$id\"" || fail "$other does not list $name"
    done
    qemus=$(qemu_of "$id" | wc -l)
    [[ $qemus == 1 ]] || fail "$qemus QEMUs run $name"
    begun=$(now)
    call "$node" VmService/DeleteVm "{\"id\":\"$id\",\"force\":true,\"wait\":true}" | grep -q '"DONE"' || fail "it is not deleted"
    measured "deleted through $node" "$begun"
    ! qemu_of "$id" >/dev/null || fail "a QEMU of $name is left"
done
table
