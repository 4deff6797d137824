# Keeps a private PostgreSQL cluster in the folder $2, with the binaries in $1, until standard input
# ends; then stops it and removes the folder. The input ends with the program that holds its other
# end, however that one dies, so no server is left behind.
set -eu
bin=$1 dir=$2
cd "$dir"
trap 'rm -rf "$dir" 2>/dev/null || true' EXIT

"$bin/initdb" -D data -U keylock --auth=trust --encoding=UTF8 --no-locale --no-sync >log 2>&1 &&
	"$bin/pg_ctl" -D data -l log -w start -o "-c listen_addresses= -c unix_socket_directories='$dir' -c port=5432 -c max_connections=200" >>log 2>&1 ||
	{ cat log >&2; exit 1; }
echo ready
cat >/dev/null
"$bin/pg_ctl" -D data -m fast -w stop >>log 2>&1
