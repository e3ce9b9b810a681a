# A PostgreSQL cluster that lives as long as its standard input is open, and
# leaves nothing behind. Arguments: directory of the server binaries, directory
# to make the cluster in, port (of the socket), further settings as -c flags. With
# STANDBY_OF (a connection string) it is a copy of that cluster that follows it.
# With CLOCK_LIBRARY the server, and nothing else, is started with that library.
#
# Commands on standard input, each answered with a line: "kill" ends every
# process of the server at once (SIGKILL), "shutdown" ends it in order, "start"
# starts it again, "follow" and a connection string starts it as a standby of that
# cluster; "pause" stops every process where it is (SIGSTOP) until "resume".
set -u
bin=$1 dir=$2 port=$3
shift 3
pid=

start() {
    while :; do
        env ${CLOCK_LIBRARY:+"LD_PRELOAD=$CLOCK_LIBRARY"} "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses= \
            -c unix_socket_directories="$dir" -c max_connections=200 "$@" >>"$dir/log" 2>&1 &
        pid=$!
        while kill -0 "$pid" 2>/dev/null; do
            if grep -qE "ready|standby" "$dir/data/postmaster.pid" 2>/dev/null; then
                echo started
                return
            fi
            sleep 0.02
        done
        # A backend of the killed server may still hold its shared memory.
        sleep 0.05
    done
}

cleanup() {
    trap - EXIT INT TERM HUP
    if [ -n "$pid" ]; then
        # At once, without waiting for standbys; the files go anyway.
        kill -CONT "$pid" $(pgrep -P "$pid") 2>/dev/null
        kill -QUIT "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    fi
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

create() {
    if [ -n "${STANDBY_OF:-}" ]; then
        "$bin/pg_basebackup" -D "$dir/data" -d "$STANDBY_OF" -R -X stream -c fast --no-sync
    else
        "$bin/initdb" -D "$dir/data" -U voicecall -E UTF8 --locale=C -A trust --no-sync
    fi
}
create >"$dir/log" 2>&1 || {
    cat "$dir/log" >&2
    exit 1
}
start "$@"
while read -r command argument; do
    case $command in
        kill)
            kill -9 "$pid" $(pgrep -P "$pid") 2>/dev/null
            wait "$pid" 2>/dev/null
            rm -f "$dir/data/postmaster.pid"
            pid=
            echo killed
            ;;
        shutdown)
            kill -INT "$pid"
            wait "$pid"
            pid=
            echo "shut down"
            ;;
        start) start "$@" ;;
        follow)
            touch "$dir/data/standby.signal"
            echo "primary_conninfo = '$argument'" >>"$dir/data/postgresql.auto.conf"
            start "$@"
            ;;
        pause)
            # The postmaster first, so that nothing new starts meanwhile.
            kill -STOP "$pid"
            kill -STOP $(pgrep -P "$pid")
            echo paused
            ;;
        resume)
            kill -CONT $(pgrep -P "$pid") "$pid"
            echo resumed
            ;;
    esac
done
