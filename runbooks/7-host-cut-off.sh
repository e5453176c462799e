#!/usr/bin/env bash
# Scenario 7: a host loses contact, for a moment and for longer. See the .md of the same name. Takes servers that run on
# this machine: one of them is stopped (SIGSTOP), so that it neither hears nor is heard, while its guard and its QEMUs go
# on.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

goes_on() { executes "$3" && [[ $(vm_field "$1" "$2" state) == RUNNING && $(vm_field "$1" "$2" qemuState) == running ]]; }

until_whole "${NODES[0]}"
leader=$(node_of "$(leader_of "${NODES[0]}")")
mapfile -t followers < <(others "$leader")
node=${followers[0]}
host=$(host_of "$node")
pinned=$(pinned_on "$node" runbook-7-pinned)
MADE+=("$pinned")
leased=$(leased_on "$node" runbook-7-leased)
MADE+=("$leased")
of_pinned=$(qemu_of "$pinned")
of_leased=$(qemu_of "$leased")

stop_server "$node"
cut=$(now)
until_true "the leased VM is frozen" 30 stands_still "$of_leased"
measured "no contact, until the leased VM is frozen" "$cut"
continue_servers
healed=$(now)
until_true "it goes on" 30 goes_on "$leader" "$leased" "$of_leased"
measured "contact again before the host was given up, until the VM goes on, the same process" "$healed"
[[ $(vm_field "$leader" "$leased" host) == "$host" ]] || fail "it was moved"

until_whole "$leader"
stop_server "$node"
cut=$(now)
until_true "the leased VM is frozen" 30 stands_still "$of_leased"
until_true "the leased VM runs elsewhere" 30 runs_elsewhere "$leader" "$leased" "$host"
measured "no contact, until the leased VM runs elsewhere" "$cut"
stands_still "$of_leased" || fail "what was frozen was touched without proof"
executes "$of_pinned" || fail "the VM with ha off does not execute"
continue_servers
healed=$(now)
until_true "what was left behind is killed" 30 is_gone "$of_leased"
measured "contact again after that, until what was left behind is killed" "$healed"
until_whole "$leader"
executes "$of_pinned" || fail "the VM with ha off did not run on"
runs_elsewhere "$node" "$leased" "$host" || fail "the VM did not stay where it went"
table
