package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// install makes a folder with empty files of the names of a server's binaries.
func install(t *testing.T, dir string, names ...string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o755))
	}
	return dir
}

func TestNewestVersionIsFoundUnlessThePathHasOne(t *testing.T) {
	root := t.TempDir()
	pattern := filepath.Join(root, "*", "bin")
	install(t, filepath.Join(root, "9", "bin"), "initdb", "pg_ctl")
	newest := install(t, filepath.Join(root, "15", "bin"), "initdb", "pg_ctl")
	install(t, filepath.Join(root, "16", "bin"), "psql") // only a client

	found, err := findBinaries("", pattern)
	require.NoError(t, err)
	assert.Equal(t, newest, found)

	client := install(t, filepath.Join(root, "client"), "psql")
	server := install(t, filepath.Join(root, "server"), "initdb", "pg_ctl")
	found, err = findBinaries(client+string(os.PathListSeparator)+server, pattern)
	require.NoError(t, err)
	assert.Equal(t, server, found)
}

func TestMissingServerIsNamedWithItsPackage(t *testing.T) {
	_, err := findBinaries(t.TempDir(), filepath.Join(t.TempDir(), "*"))
	require.ErrorIs(t, err, ErrNotInstalled)
	assert.ErrorContains(t, err, "apt-get install postgresql")
}
