package store

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func openBadger(t *testing.T) Store {
	t.Helper()
	s, err := OpenBadger(t.TempDir())
	require.NoError(t, err)
	return s
}

func TestBadger(t *testing.T) { testStore(t, openBadger, true) }

func TestBadgerSyncsEveryCommit(t *testing.T) {
	s := openBadger(t)
	defer func() { require.NoError(t, s.Close()) }()
	assert.True(t, s.(badgerStore).db.Opts().SyncWrites)
}

func TestBadgerKeepsRecordsOnDisk(t *testing.T) {
	dir := t.TempDir()
	for want := int64(1); want <= 3; want++ {
		s, err := OpenBadger(dir)
		require.NoError(t, err)
		_, err = s.Raise(t.Context(), v4, 1, 100)
		require.NoError(t, err)
		records, err := s.Records(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[netip.Addr]Record{v4: {Score: want}}, records)
		require.NoError(t, s.Close())
	}
}

func TestOpenBadgerFailsWhereNoFolderCanBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenBadger(file)
	assert.Error(t, err)
}
