# Ends what runs in $FOLDER when the end of the input comes, which it does however the owner of the pipe ends,
# and removes the folder, unless $KEEP says not to. Only our own programs and QEMUs are ended: a shell that
# somebody left in the folder is theirs. Deaf to Ctrl-C, which reaches the owner and this process alike.
trap '' INT TERM HUP
while read -r _; do :; done

# By working folder (QEMU runs in its own) or by command line (everybody else names it).
here() {
    {
        find /proc -mindepth 2 -maxdepth 2 -name cwd \( -lname "$FOLDER" -o -lname "$FOLDER/*" \) 2>/dev/null
        grep -lsF -f - /proc/[0-9]*/cmdline <<<"$FOLDER"
    } | cut -d/ -f3 | sort -u | while read -r pid; do
        read -r name 2>/dev/null <"/proc/$pid/comm" || continue
        case $name in plasmavmc* | qemu-*) echo "$pid" ;; esac
    done
}

for _ in {1..400}; do
    found=$(here)
    [[ -z $found ]] && break
    # shellcheck disable=SC2086
    kill -9 $found 2>/dev/null
    sleep 0.02
done
[[ -n $KEEP ]] && exit
for _ in {1..100}; do rm -rf -- "$FOLDER" 2>/dev/null && break; sleep 0.1; done
