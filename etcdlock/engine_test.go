package etcdlock_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// What needs a server is tested in the module e2e, so that this one does not need it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// newEngine returns an engine whose etcd is not there.
func newEngine(t *testing.T, opts ...etcdlock.Option) *etcdlock.Engine {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop()})
	require.NoError(t, err)
	e, err := etcdlock.New(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, e.Close(context.Background()))
		assert.NoError(t, client.Close())
	})
	return e
}

func TestNamesOfKeysAreDistinctAndNoneContainsAnother(t *testing.T) {
	e := newEngine(t)
	assert.Equal(t, "/locks/order,", e.Name("order"))
	assert.Equal(t, "/locks/order%2F42,", e.Name("order/42"))
	assert.Equal(t, "/locks/order%252F42,", e.Name("order%2F42"))
	assert.Equal(t, "/locks/order%2C,", e.Name("order,"))
	assert.Equal(t, "/locks/,", e.Name(""))
}

func TestPrefixEndsInOneSlash(t *testing.T) {
	assert.Equal(t, "/mine/k,", newEngine(t, etcdlock.WithPrefix("/mine")).Name("k"))
	assert.Equal(t, "/mine/k,", newEngine(t, etcdlock.WithPrefix("/mine/")).Name("k"))
}

// Of two prefixes where one begins with the other, no queue holds the entries of the other, whatever the keys.
func TestPrefixesDoNotMeet(t *testing.T) {
	keys := []string{"", "a", "a/b", "b", "a,", ",", "/", ",/", "%2C"}
	var names []string
	for _, prefix := range []string{"/locks", "/locks/a", "/locks/a/b", "/", "/locks/%2C"} {
		e := newEngine(t, etcdlock.WithPrefix(prefix))
		for _, key := range keys {
			names = append(names, e.Name(key))
		}
	}
	for i, name := range names {
		for j, other := range names {
			if i != j {
				assert.False(t, strings.HasPrefix(other+"/1f", name+"/"), "%q is in the queue of %q", other, name)
			}
		}
	}
}

func TestClientMustBeGiven(t *testing.T) {
	e, err := etcdlock.New(nil)
	require.EqualError(t, err, "etcdlock: nil client")
	require.Nil(t, e)
	_, err = etcdlock.New(new(clientv3.Client)) // which ended the process, on a goroutine of the engine's
	require.EqualError(t, err, "etcdlock: the client has no connection: clientv3.New makes one that has")
}

func TestOptionsAreChecked(t *testing.T) {
	for want, option := range map[string]etcdlock.Option{
		"nil Option":                        nil,
		"contains":                          etcdlock.WithPrefix("/locks/a,/"),
		"too long":                          etcdlock.WithPrefix(strings.Repeat("x", 1<<18)), // for any key
		"a TTL of 0s: ":                     etcdlock.WithTTL(0),
		"a TTL of -1ns: ":                   etcdlock.WithTTL(-1),
		"a TTL of -1m30s: ":                 etcdlock.WithTTL(-90 * time.Second),
		"a TTL of 2562047h47m16.854775807s": etcdlock.WithTTL(math.MaxInt64), // of which it said that it is below 0
		"a label of 129 bytes":              etcdlock.WithLabel(strings.Repeat("x", 129)),
	} {
		_, err := etcdlock.New(new(clientv3.Client), option)
		require.ErrorContains(t, err, "etcdlock: ")
		require.ErrorContains(t, err, want)
		assert.Less(t, len(err.Error()), 300)
	}
}

func TestErrorsDoNotFloodALog(t *testing.T) {
	e := newEngine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, size := range []int{100 << 10, 3 << 20} {
		key := strings.Repeat("ä", size/2)
		_, err := e.Acquire(ctx, key)
		require.Error(t, err)
		assert.Less(t, len(err.Error()), 1000)
		assert.True(t, utf8.ValidString(err.Error()))
		_, err = e.TryAcquire(ctx, key)
		require.Error(t, err)
		assert.Less(t, len(err.Error()), 1000)
		_, err = e.Inspect(ctx, key)
		require.Error(t, err)
		assert.Less(t, len(err.Error()), 1000)
	}
}

// What is nil panics in the caller, and not on a goroutine of the engine's, which ends the process.
func TestNilArgumentsPanicInTheirCaller(t *testing.T) {
	e := newEngine(t)
	var none context.Context
	for name, call := range map[string]func(){
		"Acquire":    func() { _, _ = e.Acquire(none, "k") },
		"TryAcquire": func() { _, _ = e.TryAcquire(none, "k") },
		"Ask":        func() { e.Ask(none, "k", true, func(cohort.Grant, error) {}) },
		"Close":      func() { _ = e.Close(none) },
	} {
		assert.PanicsWithValue(t, "keylock: nil context", call, name)
	}
	assert.PanicsWithValue(t, "etcdlock: OnWanted with a nil function", func() { new(etcdlock.Grant).OnWanted(nil) })
}

func TestUnreachableEtcdEndsWithTheContext(t *testing.T) {
	e := newEngine(t, etcdlock.WithTTL(time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := e.Acquire(ctx, "k")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = e.TryAcquire(ctx, "k")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestClosedBeforeUse(t *testing.T) {
	e := newEngine(t)
	require.NoError(t, e.Close(t.Context()))
	_, err := e.Acquire(t.Context(), "k")
	require.ErrorIs(t, err, cohort.ErrClosed)
	_, err = e.TryAcquire(t.Context(), "k")
	require.ErrorIs(t, err, cohort.ErrClosed)
}
