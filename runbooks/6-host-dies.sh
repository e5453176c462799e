#!/usr/bin/env bash
# Scenario 6: a host dies, first a follower, then the one that leads. See the .md of the same name. Takes servers that run
# on this machine: of one of them everything is killed at once, its guard and its QEMUs too.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

dies() {
    local role=$1 node=$2 asked=$3 host id bystander qemu seen started
    host=$(host_of "$node")
    id=$(leased_on "$node" "runbook-6-$role")
    MADE+=("$id")
    bystander=$(leased_on "$asked" "runbook-6-bystander-$role")
    MADE+=("$bystander")
    qemu=$(qemu_of "$bystander")
    seen=$(vm_field "$asked" "$id" incarnation)

    lose_power "$node"
    until_true "the host is fenced" 30 is_host_in_state "$asked" "$host" FENCED
    measured "$role killed, until it is fenced" "$LOST_AT"
    until_true "its VM runs elsewhere" 30 runs_elsewhere "$asked" "$id" "$host"
    measured "$role killed, until its VM runs elsewhere" "$LOST_AT"
    [[ $(vm_field "$asked" "$id" incarnation) == $((seen + 1)) ]] || fail "it is not the next incarnation"
    executes "$qemu" || fail "the VM of a survivor was frozen"

    started=$(now)
    start_server "$node"
    until_true "the host is back" 60 is_host_in_state "$asked" "$host" ALIVE
    measured "$role started again, until it is alive" "$started"
    until_whole "$asked"
    runs_elsewhere "$node" "$id" "$host" || fail "the VM did not stay where it went"
    [[ $(qemu_of "$id" | wc -l) == 1 && $(qemu_of "$bystander") == "$qemu" ]] || fail "there are other QEMUs than before"
}

until_whole "${NODES[0]}"
leader=$(node_of "$(leader_of "${NODES[0]}")")
mapfile -t followers < <(others "$leader")
dies follower "${followers[0]}" "${followers[1]}"
leader=$(node_of "$(leader_of "${NODES[0]}")")
mapfile -t followers < <(others "$leader")
dies leader "$leader" "${followers[0]}"
table
