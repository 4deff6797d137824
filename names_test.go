package keylock_test

import (
	"go/importer"
	"go/token"
	"go/types"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is exported is read by all users of the package, and stays. Who adds a name finds
// another to merge, or argues here for a larger number.
func TestExportedNamesDoNotGrow(t *testing.T) {
	const mostNames, mostFields = 84, 50
	pkg, err := importer.ForCompiler(token.NewFileSet(), "source", nil).Import("github.com/seed-46f81e6d/keylock")
	require.NoError(t, err)
	var names, fields []string
	for _, name := range pkg.Scope().Names() {
		object := pkg.Scope().Lookup(name)
		if !object.Exported() {
			continue
		}
		names = append(names, name)
		if _, isType := object.(*types.TypeName); !isType {
			continue
		}
		named := object.Type().(*types.Named)
		for method := range named.Methods() {
			if method.Exported() {
				names = append(names, name+"."+method.Name())
			}
		}
		if structure, ok := named.Underlying().(*types.Struct); ok {
			for field := range structure.Fields() {
				if field.Exported() {
					fields = append(fields, name+"."+field.Name())
				}
			}
		}
	}
	t.Logf("%d names, %d fields", len(names), len(fields))
	assert.LessOrEqual(t, len(names), mostNames, "%v", names)
	assert.LessOrEqual(t, len(fields), mostFields, "%v", fields)
}
