# shellcheck shell=bash
# For scripts that lose hosts for good: three servers of their own on this machine, in a folder that goes with the
# script. Other clusters are not touched; a server of NODES that runs here, or the search path, lends its programs.
#
# PORT     the first of six ports on loopback that nobody uses
# DISK_MB  for a script: each server gets a disk of that size for itself, which takes root

PORT=${PORT:-50251}
OWN=$(mktemp -d)
SERVER=(plasmavmc-server)

address() { echo "127.0.0.1:$((PORT + 2 * $1))"; }
folder_of() { echo "$OWN/${1##*:}"; }

find_programs() {
    local running guard
    running=$(server_of "${NODES[0]}" 2>/dev/null) || return 0
    mapfile -d '' SERVER < <(head -z -n 1 "/proc/$running/cmdline")
    guard=$(argument "/proc/$running/cmdline" --guard)
    [[ -z $guard ]] || SERVER+=(--guard "$guard")
}

# begin NODE NAME ARGUMENT...: the server of a host of its own.
begin() {
    local node=$1 name=$2 port=${1##*:}
    shift 2
    mkdir -p "$(folder_of "$node")"
    [[ -z ${DISK_MB:-} ]] || mount -t tmpfs -o "size=${DISK_MB}m" plasmavmc-runbook "$(folder_of "$node")" ||
        fail "no disk of its own could be mounted: this script takes root"
    setsid "${SERVER[@]}" --dir "$(folder_of "$node")" --name "$name" --cluster-listen "127.0.0.1:$((port + 1))" "$@" \
        --listen "$node" </dev/null >>"$(folder_of "$node").log" 2>&1 &
    # Its end is no news.
    disown
}

# found_cluster ARGUMENT...: h1, h2 and h3, the last one with these arguments; their servers are NODES.
found_cluster() {
    local first token
    find_programs
    mapfile -t NODES < <(address 0; address 1; address 2)
    first=${NODES[0]}
    begin "$first" h1 --init
    until_true "the first server leads" 60 leads "$first"
    token=$(call "$first" ClusterService/CreateToken '{"uses":2}' | field token)
    begin "${NODES[1]}" h2 --join "$first" --token "$token"
    begin "${NODES[2]}" h3 --join "$first" --token "$token" "$@"
    until_true "all three vote" 60 votes "$first"
}

# lost_for_good NODE...: their servers will not be started again, and their folders are gone as well.
lost_for_good() {
    local node
    lose_power "$@"
    for node in "$@"; do rm -rf "$(folder_of "$node")"; done
}

# In the place of what shared.sh does at the end: nothing of this cluster is needed any more.
end_cluster() {
    local status=$? index folder
    set +e
    for index in 0 1 2; do
        folder=$(folder_of "$(address "$index")")
        if ((status != 0)) && [[ -e $folder.log ]]; then
            echo "--- last words of the server in $folder" >&2
            tail -n 15 "$folder.log" >&2
        fi
        (until_true "nothing of $folder is left" 10 has_none "$folder")
        [[ -z ${DISK_MB:-} ]] || umount --lazy "$folder"
    done
    rm -rf "$OWN" "$KEPT"
    exit "$status"
}
trap end_cluster EXIT
