// Command keylockcheck reports misuse of package keylock; see package
// [github.com/seed-46f81e6d/keylock/keylockcheck] for what.
//
//	go tool keylockcheck ./...
//	go vet -vettool="$(go tool -n keylockcheck)" ./...
//
// All rules but orderhint are on. With the names of rules as flags only those run:
//
//	go tool keylockcheck -orderhint ./...
package main

import (
	"os"
	"strings"

	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/seed-46f81e6d/keylock/keylockcheck"
)

func main() {
	analyzers := keylockcheck.Analyzers()
	if asksForHint(os.Args[1:]) {
		analyzers = append(analyzers, keylockcheck.OrderHint)
	}
	multichecker.Main(analyzers...)
}

// asksForHint reports whether the arguments name orderhint. To go vet, which asks for the
// flags and then passes those of the user, every flag is known.
func asksForHint(args []string) bool {
	for _, arg := range args {
		name := strings.TrimLeft(arg, "-")
		if name == "flags" || name == "help" || arg == name && name == "orderhint" || arg != name && strings.HasPrefix(name, "orderhint") {
			return true
		}
	}
	return false
}
