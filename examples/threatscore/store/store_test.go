package store

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	v4 = netip.MustParseAddr("203.0.113.7")
	v6 = netip.MustParseAddr("2001:db8::7")
)

func TestRecordIsBlockedOnceItIsOverTheThreshold(t *testing.T) {
	var record Record
	for _, step := range []struct {
		points int64
		want   Record
		blocks bool
	}{
		{4, Record{Score: 4}, false},
		{6, Record{Score: 10}, false}, // at the threshold, not over it
		{1, Record{Score: 11, Blocked: true}, true},
		{5, Record{Score: 16, Blocked: true}, false},
	} {
		var blocks bool
		record, blocks = record.Raised(step.points, 10)
		assert.Equal(t, step.want, record)
		assert.Equal(t, step.blocks, blocks)
	}
}

// testStore checks what every Store promises. open returns one on an empty database, which the
// test closes. An optimistic one must show how it gives transactions up; another one must not.
func testStore(t *testing.T, open func(t *testing.T) Store, optimistic bool) {
	t.Run("RaisesEachAddressByItself", func(t *testing.T) {
		s := open(t)
		defer func() { require.NoError(t, s.Close()) }()

		records, err := s.Records(t.Context())
		require.NoError(t, err)
		assert.Empty(t, records)

		for range 3 {
			_, err := s.Raise(t.Context(), v4, 5, 100)
			require.NoError(t, err)
		}
		blocks, err := s.Raise(t.Context(), v6, 101, 100)
		require.NoError(t, err)
		assert.True(t, blocks)
		blocks, err = s.Raise(t.Context(), v6, 1, 100)
		require.NoError(t, err)
		assert.False(t, blocks, "it is blocked already")

		records, err = s.Records(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[netip.Addr]Record{v4: {Score: 15}, v6: {Score: 102, Blocked: true}}, records)
	})

	t.Run("ChangesNothingOnceTheContextIsDone", func(t *testing.T) {
		s := open(t)
		defer func() { require.NoError(t, s.Close()) }()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		_, err := s.Raise(ctx, v4, 5, 100)
		require.ErrorIs(t, err, context.Canceled)
		records, err := s.Records(t.Context())
		require.NoError(t, err)
		assert.Empty(t, records)
	})

	t.Run("LosesNoUpdateWhenTransactionsCollide", func(t *testing.T) {
		s := open(t)
		defer func() { require.NoError(t, s.Close()) }()
		const threshold = 100

		var raised, conflicts, blocks int64
		for round := 0; round == 0 || optimistic && conflicts == 0; round++ {
			require.Less(t, round, 100, "no transaction ever loses")
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for range 10 {
						blocked, err := s.Raise(t.Context(), v4, 1, threshold)
						mu.Lock()
						switch {
						case errors.Is(err, ErrConflict):
							conflicts++
							assert.False(t, blocked)
						case assert.NoError(t, err):
							raised++
							if blocked {
								blocks++
							}
						}
						mu.Unlock()
					}
				})
			}
			all.Wait()
		}
		assert.Equal(t, optimistic, conflicts > 0, "%d conflicts", conflicts)
		for ; raised <= threshold; raised++ {
			blocked, err := s.Raise(t.Context(), v4, 1, threshold)
			require.NoError(t, err)
			if blocked {
				blocks++
			}
		}

		records, err := s.Records(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[netip.Addr]Record{v4: {Score: raised, Blocked: true}}, records)
		assert.EqualValues(t, 1, blocks)
	})
}

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
