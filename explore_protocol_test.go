//go:build !race

package keylock

import (
	"bytes"
	"flag"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var copied = flag.Bool("copied", false, "TestExplorerCopiesTheProtocol accepts the protocol as it is now")

// TestExplorerCopiesTheProtocol fails when a function changes that the explorer has a
// copy of. Then change the copy in explore_world_test.go, so that it makes the same
// accesses in the same order, and say that you have:
//
//	go test . -run=TestExplorerCopiesTheProtocol -copied
func TestExplorerCopiesTheProtocol(t *testing.T) {
	const golden = "testdata/protocol.txt"
	protocol := sourceOf(t, map[string][]string{
		"manager.go": {
			"Start", "owner.run", "Manager.send", "Manager.acquire", "Manager.wait", "Manager.listen", "Manager.abandonRequest", "Manager.try",
			"Manager.reserve", "Manager.WaitIdle", "Manager.Shutdown", "Manager.Close",
		},
		"requests.go": {"ask"},
		"lock.go":     {"Lock.Release", "Lock.Handoff", "Reservation.Wait", "Reservation.Cancel"},
		"session.go":  {"Session.Close"},
	})
	if *copied {
		require.NoError(t, os.WriteFile(golden, []byte(protocol), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), protocol, "the protocol is no longer what the explorer has a copy of")
}

// sourceOf returns the code of the functions, without comments, in the order of the files.
func sourceOf(t *testing.T, functions map[string][]string) string {
	var code bytes.Buffer
	for _, file := range []string{"manager.go", "requests.go", "lock.go", "session.go"} {
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, 0)
		require.NoError(t, err)
		found := make(map[string]*ast.FuncDecl)
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				found[functionName(f)] = f
			}
		}
		for _, name := range functions[file] {
			require.Contains(t, found, name, file)
			require.NoError(t, format.Node(&code, files, found[name]))
			code.WriteString("\n\n")
		}
	}
	return code.String()
}

// functionName returns the name of a function, with that of its receiver's type before it.
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	return receiver.(*ast.Ident).Name + "." + f.Name.Name
}
