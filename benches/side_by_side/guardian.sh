# Runs a command for as long as its own standard input is open, then stops it and
# removes a directory, however the process at the other end of the input has ended.
#
# Arguments: the signal that stops the command, the directory (or nothing), the
# command.
set -u
signal=$1 dir=$2
shift 2
"$@" </dev/null &
pid=$!
# A reader of the command's output sees its end when the command ends.
exec >/dev/null 2>&1
trap '' INT TERM HUP
cat
kill -"$signal" "$pid"
wait "$pid"
[ -n "$dir" ] && rm -rf "$dir"
exit 0
