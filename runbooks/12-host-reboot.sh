#!/usr/bin/env bash
# Scenario 12: a host is rebooted, on purpose. See the .md of the same name. Takes servers that run on this machine: of one
# of them everything is killed at once, after it was emptied.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"

is_empty() { ! qemu_of "$1" >/dev/null && ! qemu_of "$2" >/dev/null; }
is_mode() { [[ $(call "$1" HostService/GetHost "{\"id\":\"$2\"}" | field mode) == "$3" ]]; }

until_whole "${NODES[0]}"
leader=$(node_of "$(leader_of "${NODES[0]}")")
mapfile -t followers < <(others "$leader")
node=${followers[0]}
host=$(host_of "$node")
leased=$(leased_on "$node" runbook-12-leased)
MADE+=("$leased")
bound=$(pinned_on "$node" runbook-12-bound)
MADE+=("$bound")
[[ $(host_of "$node") == $(vm_field "$leader" "$bound" host) ]] || fail "the bound VM is elsewhere"
mapfile -t qemus < <(qemu_of "$leased"; qemu_of "$bound")

# They have no guests, so that nothing answers: a second, and their plugs are pulled.
begun=$(now)
call "$leader" HostService/PrepareHostShutdown "{\"id\":\"$host\",\"timeout_ms\":1000}" >/dev/null
for qemu in "${qemus[@]}"; do until_true "nothing of it runs there" 30 has_ended "$qemu"; done
measured "told, until nothing runs on the host" "$begun"
until_true "its leased VM runs elsewhere" 30 runs_elsewhere "$leader" "$leased" "$host"
measured "told, until its leased VM runs elsewhere" "$begun"
until_true "the VM that is bound to it waits" 30 is_in_state "$leader" "$bound" STOPPED
is_mode "$leader" "$host" SHUTTING_DOWN || fail "the host is not shown as shutting down"

lose_power "$node"
until_true "the host is fenced" 30 is_host_in_state "$leader" "$host" FENCED
warnings=$(call "$leader" ClusterService/Status | grep -F "host $host: its session" || true)
[[ -z $warnings ]] || fail "it alarms somebody: $warnings"

begun=$(now)
start_server "$node"
until_true "the host is back" 60 is_host_in_state "$leader" "$host" ALIVE
# A machine that was booted has another instance: for that this is not needed.
call "$leader" HostService/ActivateHost "{\"id\":\"$host\"}" >/dev/null
until_true "the bound VM runs" 60 is_in_state "$leader" "$bound" RUNNING
measured "its server starts, until the VM that waited for it runs" "$begun"
until_whole "$leader"
runs_elsewhere "$leader" "$leased" "$host" || fail "the leased VM did not stay where it went"
[[ $(qemu_of "$leased" | wc -l) == 1 && $(qemu_of "$bound" | wc -l) == 1 ]] || fail "there are other QEMUs than these"
table
