#!/usr/bin/env bash
# Two of three hosts are lost for good. See the .md of the same name. Makes a cluster of its own on this machine; no other
# one is touched.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/shared.sh"
. "$(dirname "$0")/own-cluster.sh"

ACCEPT=--i-accept-that-what-only-the-lost-members-knew-is-lost

# recover [FLAG]: what it says, and whether it did it.
recover() { "${SERVER[0]}" recover --dir "$(folder_of "$left")" "$@" 2>&1; }
# Above all incarnations that were given before.
runs_anew() {
    local answer
    answer=$(call "$left" VmService/GetVm "{\"id\":\"$1\"}" 2>/dev/null) || return 1
    [[ $(field state <<<"$answer") == RUNNING && $(field host <<<"$answer") == h1 ]] &&
        (($(field incarnation <<<"$answer") >= 1 << 32))
}

found_cluster
left=${NODES[0]}
kept=$(leased_on "$left" kept)
stranded=$(leased_on "${NODES[1]}" stranded)
qemu=$(qemu_of "$kept")

said=$(recover "$ACCEPT") && fail "a server was robbed of its store while it ran: $said"
lost_for_good "${NODES[1]}" "${NODES[2]}"
until_true "what is leased is frozen" 30 stands_still "$qemu"
measured "two of three hosts lost, until what is leased on the third is frozen" "$LOST_AT"

kill_server "$left"
said=$(recover) && fail "it was done without being accepted: $said"
grep -q 'nothing was changed' <<<"$said" || fail "it does not say that nothing was changed: $said"
begun=$(now)
said=$(recover "$ACCEPT") || fail "$said"
measured "the recovery itself" "$begun"
begun=$(now)
start_server "$left"
NODES=("$left")
until_whole "$left"
measured "its server starts, until it is a cluster of one" "$begun"
until_true "what ran here runs anew" 60 runs_anew "$kept"
measured "its server starts, until what was leased here runs anew" "$begun"
until_true "the frozen one is gone" 30 has_ended "$qemu"
[[ $(qemu_of "$kept" | wc -l) == 1 ]] || fail "there are other QEMUs of $kept"
[[ $(vm_field "$left" "$stranded" state) != RUNNING ]] || fail "it was started though its host may run it"

begun=$(now)
call "$left" ClusterService/RemoveHost '{"id":"h2","dead":true}' >/dev/null
until_true "what the lost host ran runs here" 60 runs_anew "$stranded"
measured "a lost host is said to be off, until what it ran runs here" "$begun"
table
