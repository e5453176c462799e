#!/usr/bin/env bash
# Scenario 11: the wall clock of a host jumps, first of the one that leads, then of a follower. See the .md of the same
# name. Takes servers that run on this machine, and libfaketime, which shows a process another clock than the machine's.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

library=${LIBFAKETIME:-/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketimeMT.so.1}
[[ -r $library ]] || fail "there is no $library: apt-get install libfaketime, or name it in LIBFAKETIME"

# step NODE OFFSET: its server and its guard see the wall clock so far off from now on.
step() { printf '%s\n' "$2" >"$KEPT/clock-$1"; }
start_with_clock_of_its_own() {
    (
        export LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$KEPT/clock-$1 FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
        start_server "$1"
    )
}
has_clock_of() {
    local off=$(($(vm_field "$1" "$2" createdAtMs) - $(now)))
    ((off > $3 - 60000 && off < $3 + 60000))
}

# nothing_happens WHAT: for longer than any lease, watched from the processes.
nothing_happens() {
    local begun index
    begun=$(now)
    until has_passed "$begun" 8000; do
        for index in "${!leased[@]}"; do executes "${qemus[$index]}" || fail "$1: a VM was frozen"; done
    done
    for index in "${!leased[@]}"; do
        [[ $(vm_field "${NODES[0]}" "${leased[$index]}" pid) == "${qemus[$index]}" ]] || fail "$1: a VM was moved"
        [[ $(vm_field "${NODES[0]}" "${leased[$index]}" state) == RUNNING ]] || fail "$1: a VM does not run"
    done
    is_whole "${NODES[0]}" || fail "$1: a host is not alive"
    ROWS+=("| $1 | nothing happens within 8 s |")
    echo "${ROWS[-1]}"
}

until_whole "${NODES[0]}"
lose_power "${NODES[@]}"
for node in "${NODES[@]}"; do
    step "$node" +0
    start_with_clock_of_its_own "$node"
done
until_whole "${NODES[0]}"
lease_on_each runbook-11
leader=$(node_of "$(leader_of "${NODES[0]}")")
mapfile -t followers < <(others "$leader")

number=0
for case in "the leader|$leader|+3600|3600000" "the leader|$leader|-3600|-3600000" \
    "a follower|${followers[0]}|+3600|3600000" "a follower|${followers[0]}|-3600|-3600000"; do
    IFS='|' read -r whose node offset offset_ms <<<"$case"
    step "$node" "$offset"
    nothing_happens "the clock of $whose stands at $offset s"
    # It did step: what is made there has that date.
    number=$((number + 1))
    id=$(create "$node" "{\"name\":\"runbook-11-dated-$number\",\"vcpus\":1,\"memory_mb\":64,\"powered_off\":true}")
    MADE+=("$id")
    has_clock_of "$node" "$id" "$offset_ms" || fail "the clock of $whose did not jump"
    step "$node" +0
done

# As they were before.
lose_power "${NODES[@]}"
for node in "${NODES[@]}"; do start_server "$node"; done
until_whole "${NODES[0]}"
table
