#!/bin/sh
# Adds another revision of keylock to the bench as the peer "base", so that a change and
# what was there before are measured interleaved:
#
#	benchmarks/base.sh main          # or any revision; without one the peer goes again
#	go run -C benchmarks . -run hot -peers keylock,base
#
# What it writes is ignored by git.
set -eu
cd "$(dirname "$0")"
copy=internal/base
adapter=internal/peers/base_generated.go
rm -rf "$copy" "$adapter"
[ $# -gt 0 ] || exit 0

module=github.com/seed-46f81e6d/keylock
mkdir -p "$copy"
git -C .. archive "$1" internal $(git -C .. ls-tree --name-only "$1" | grep '\.go$') | tar -x -C "$copy"
find "$copy" -name '*_test.go' -delete
find "$copy" -name '*.go' -exec sed -i "s|\"$module/internal/|\"$module/benchmarks/$copy/internal/|" {} +

all=Lock # what AcquireAll returns; older revisions had a type of its own for it
if grep -q '^type Locks\[' "$copy"/*.go; then all=Locks; fi

sed -e "s|\"$module\"|keylock \"$module/benchmarks/$copy\"|" -e 's/keylock\(s\|Client\|ManyClient\)\b/base\1/g' \
	-e "s/keylock\.Lock\[string\] \/\/ of all/keylock.$all[string]/" -e '/^\/\//d' internal/peers/adapter.go >"$adapter"
cat >>"$adapter" <<EOF

func init() {
	added = append(added, Peer{
		Name:   "base",
		About:  "this library at $(git -C .. rev-parse --short "$1")",
		Traits: Traits{FIFO: true, Context: true, Study: true},
		Open:   func() Locker { return bases{keylock.Start[string](context.Background())} },
	})
}
EOF
