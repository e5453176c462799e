#!/usr/bin/env bash
# Nothing graceful begins unless the guest agent has just answered. See the .md of the same name.
# GUEST names a folder with kernel, initrd and cmdline of a guest that has an agent; `cargo xtask guest-image micro`
# makes one.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

guest=${GUEST:-$(dirname "$0")/../target/guests/micro}
[[ -r $guest/kernel ]] || fail "there is no guest in $guest; cargo xtask guest-image micro makes one"
guest=$(cd "$guest" && pwd)

agent_answers() { [[ $(vm_field "$1" "$2" agent) == responding ]]; }

for node in "${NODES[@]}"; do
    name=runbook-5-${node//[.:]/-}
    id=$(create "$node" "{\"name\":\"$name-silent\",\"vcpus\":1,\"memory_mb\":512,\"wait\":true}")
    MADE+=("$id")
    qemu=$(qemu_of "$id")
    for action in StopVm RebootVm RestartVm; do
        begun=$(now)
        if said=$(call "$node" "VmService/$action" "{\"id\":\"$id\",\"wait\":true}" 2>&1); then
            grep -q AGENT_SILENT <<<"$said" || fail "$action through $node: $said"
        fi
        measured "$action through $node, refused because the agent is silent" "$begun"
        is_in_state "$node" "$id" RUNNING || fail "$action changed something"
        [[ $(qemu_of "$id") == "$qemu" ]] || fail "$action touched the QEMU"
    done
    echo "   $(tr -d '\n' <<<"$said")"
    call "$node" VmService/StopVm "{\"id\":\"$id\",\"force\":true,\"wait\":true}" | grep -q '"DONE"' || fail "force does not stop it"

    id=$(create "$node" "{\"name\":\"$name\",\"vcpus\":1,\"memory_mb\":256,\"wait\":true,\"direct_boot\":{\"kernel\":\"$guest/kernel\",\"initrd\":\"$guest/initrd\",\"cmdline\":\"$(cat "$guest/cmdline")\"}}")
    MADE+=("$id")
    begun=$(now)
    until_true "the agent answers" 180 agent_answers "$node" "$id"
    measured "through $node: a guest boots until its agent answers" "$begun"
    begun=$(now)
    call "$node" VmService/StopVm "{\"id\":\"$id\",\"wait\":true}" | grep -q '"DONE"' || fail "it does not stop"
    measured "StopVm through $node, through the agent, until it is off" "$begun"
    is_in_state "$node" "$id" STOPPED || fail "it is not off"
done
table
