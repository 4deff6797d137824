package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// keepForLong is longer than what is done with keys that are kept takes, on a machine that is busy.
const keepForLong = 2 * time.Minute

// A process has used keys and keeps them. Another one gets each of them: by waiting, by the second try, with
// concurrency.Mutex, and in the end, when the process was killed, after its TTL.
func TestKeptKeysOfAnotherProcess(t *testing.T) {
	t.Parallel() // it waits
	addr := startNode(t)
	client := dial(t, addr)
	keeper := startFigurer(t, addr, "keep for long")
	engine, err := etcdlock.New(client, etcdlock.WithPrefix("/keep for long"), etcdlock.WithTTL(10*time.Second))
	require.NoError(t, err)
	m := cohort.Start(context.Background(), engine)
	defer m.Close()
	before := len(keysUnder(t, client, "/keep for long/")) // of a key that the process has kept since it began
	keeper.measure(t, figureTask{Case: "each once", Keys: 10})
	require.Len(t, keysUnder(t, client, "/keep for long/"), before+10, "they are kept")

	for _, key := range []string{"0", "1", "2"} {
		began := time.Now()
		l, err := m.Acquire(t.Context(), key)
		require.NoError(t, err)
		t.Log("recalled in", time.Since(began))
		assert.Less(t, time.Since(began), keepForLong/2, "long before the keeper would give it back by itself")
		require.NoError(t, l.Release())
	}
	_, err = m.TryAcquire(t.Context(), "3")
	require.ErrorIs(t, err, cohort.ErrHeld)
	require.Eventually(t, func() bool { return len(keysUnder(t, client, engine.Name("3")+"/")) == 0 }, keepForLong/2, time.Millisecond)
	l, err := m.TryAcquire(t.Context(), "3")
	require.NoError(t, err)
	require.NoError(t, l.Release())

	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	require.NoError(t, err)
	defer session.Close()
	stock := concurrency.NewMutex(session, engine.Name("4"))
	began := time.Now()
	require.NoError(t, stock.Lock(t.Context()))
	t.Log("concurrency.Mutex served in", time.Since(began))
	assert.Less(t, time.Since(began), keepForLong/2, "a second is promised, on a machine with nothing else to do")
	require.NoError(t, stock.Unlock(t.Context()))
	require.Eventually(t, func() bool { return len(keysUnder(t, client, "/keep for long/")) == before+5 }, patience, 10*time.Millisecond,
		"what is left is kept, and no note stays")

	keeper.measure(t, figureTask{Case: "each once", Keys: 10}) // it gets them back
	keeper.kill()
	l, err = m.Acquire(t.Context(), "9")
	require.NoError(t, err)
	require.NoError(t, l.Release())
	require.Eventually(t, func() bool { return len(keysUnder(t, client, "/keep for long/")) == 0 }, patience, 10*time.Millisecond)
}

// A claim that can no longer be recalled is given back, although no other process wants it.
func TestKeptKeysGoBackWhenTheInboxIsNotWatched(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	n := newNetwork()
	m := newManager(t, dial(t, n.to(t, "n0", node)), 30*time.Second, cohort.WithKeep(time.Hour, 8))
	use := func() {
		for _, key := range []string{"a", "b", "c"} {
			l, err := m.Acquire(t.Context(), key)
			require.NoError(t, err)
			require.NoError(t, l.Release())
		}
	}
	use()
	time.Sleep(700 * time.Millisecond) // the queues were looked at
	require.Len(t, keysUnder(t, direct, "/locks/"), 3)
	compact(t, direct)
	n.set(func(_, _ string) weather { return weather{Down: true} })
	time.Sleep(100 * time.Millisecond)
	n.heal()
	awaitNoKeys(t, direct, patience)
	require.Eventually(t, func() bool {
		use()
		return len(keysUnder(t, direct, "/locks/")) == 3
	}, patience, 10*time.Millisecond, "they are kept again")
	require.NoError(t, m.Close())
	assert.Empty(t, keysUnder(t, direct, "/locks/"))
}

// The end of a manager gives every kept key back with one request. While a caller still holds a lock, Shutdown gives them
// back before, dozens with each.
func TestKeptKeysGoBackAtTheEnd(t *testing.T) {
	node := startNode(t)
	client := dial(t, node)
	for _, end := range []struct {
		name     string
		holds    bool
		end      func(m *cohort.Manager) error
		messages float64 // at most, of the session's other requests too
	}{
		{"Close", false, (*cohort.Manager).Close, 30},
		{"Shutdown", false, func(m *cohort.Manager) error { return m.Shutdown(context.Background()) }, 30},
		{"Shutdown with a holder", true, func(m *cohort.Manager) error { return m.Shutdown(context.Background()) }, 150},
	} {
		t.Run(end.name, func(t *testing.T) {
			const keys = 1000
			m := newManager(t, dial(t, node), time.Minute, cohort.WithKeep(time.Hour, keys+1))
			for i := range keys {
				l, err := m.Acquire(t.Context(), strconv.Itoa(i))
				require.NoError(t, err)
				require.NoError(t, l.Release())
			}
			require.Len(t, keysUnder(t, client, "/locks/"), keys)
			left := 0
			var holder cohort.Lock
			if end.holds {
				var err error
				holder, err = m.Acquire(t.Context(), "held")
				require.NoError(t, err)
				left = 1
			}
			before, began := messages(t, node), time.Now()
			ended := make(chan error, 1)
			go func() { ended <- end.end(m) }()
			require.Eventually(t, func() bool {
				resp, err := client.Get(t.Context(), "/locks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
				require.NoError(t, err)
				before++
				return resp.Count == int64(left)
			}, patience, 5*time.Millisecond)
			n := messages(t, node) - before
			t.Log("given back after", time.Since(began), "with", n, "messages")
			assert.LessOrEqual(t, n, end.messages)
			require.NoError(t, holder.Release())
			require.NoError(t, receive(t, ended, "the end"))
		})
	}
}

// whenWanted returns a channel that is closed when another process wants the grant.
func whenWanted(g *etcdlock.Grant) <-chan struct{} {
	wanted := make(chan struct{})
	g.OnWanted(func() { close(wanted) })
	return wanted
}

// A holder learns at once that another process waits for its key, or has tried it, and of no other key. The notes by
// which it does are gone when their writers are.
func TestHolderLearnsThatItsKeyIsWanted(t *testing.T) {
	client := dial(t, startNode(t))
	here, there := newEngine(t, client, 20*time.Second), newEngine(t, client, 20*time.Second)
	other := acquire(t, here, "other")
	otherWanted := whenWanted(other)

	held := acquire(t, here, "waited for")
	wanted := whenWanted(held)
	granted := waitInQueue(t, client, there, "waited for", 2)
	receive(t, wanted, "the note of a waiter")
	require.NoError(t, held.Release(t.Context()))
	theirs := receive(t, granted, "the lock").(*etcdlock.Grant)

	again := waitInQueue(t, client, here, "waited for", 2)
	receive(t, whenWanted(theirs), "the note of one that came before OnWanted was called")
	require.NoError(t, theirs.Release(t.Context()))
	require.NoError(t, receive(t, again, "the lock").Release(t.Context()))

	held = acquire(t, here, "tried")
	wanted = whenWanted(held)
	_, err := there.TryAcquire(t.Context(), "tried")
	require.ErrorIs(t, err, cohort.ErrHeld)
	receive(t, wanted, "the note of a try")
	require.NoError(t, held.Release(t.Context()))

	assert.Empty(t, otherWanted)
	require.NoError(t, other.Release(t.Context()))
	awaitNoKeys(t, client, patience)
	assert.Zero(t, here.Report().Orphans+there.Report().Orphans, "nothing is left to the audit")
}

// awaitMark waits until etcd knows that the holder listens.
func awaitMark(t *testing.T, client *clientv3.Client, held *etcdlock.Grant) {
	require.Eventually(t, func() bool {
		value, err := client.Get(t.Context(), held.Key())
		require.NoError(t, err)
		return len(value.Kvs) == 1 && strings.Contains(string(value.Kvs[0].Value), " listens ")
	}, patience, time.Millisecond)
}

// One request looks at as many queues as etcd's client may send, also where their names are long.
func TestQueuesOfLongNamesAreLookedAt(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 20*time.Second)
	for i := range 60 {
		acquire(t, e, strconv.Itoa(i)+strings.Repeat("x", 20000)).OnWanted(func() {})
	}
	held := acquire(t, e, "key")
	wanted := whenWanted(held)
	awaitMark(t, client, held)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	require.NoError(t, err)
	defer session.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = concurrency.NewMutex(session, e.Name("key")).Lock(ctx) }()
	receive(t, wanted, "the look")
	if err := e.Report().LastError; err != nil {
		assert.NotContains(t, err.Error(), "larger than max")
	}
}

// A failed try removes its note at once, perhaps before the holder's process watches its inbox, and leaves none again for the
// same holder. A slow watch, the first one or another, made such a key one that no try could ever get.
func TestNoteOfATryIsFoundByALateWatch(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	var w watchGate
	w.shut()
	here := newEngine(t, dialWith(t, func(c *clientv3.Config) { c.DialOptions = []grpc.DialOption{w.option()} }, node), 20*time.Second)
	there := newEngine(t, direct, 20*time.Second)
	require.NoError(t, acquire(t, there, "session").Release(t.Context()))
	try := func(key string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		notes := direct.Watch(ctx, "/locks/,wanted/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
		require.True(t, receive(t, notes, "the watch").Created)
		_, err := there.TryAcquire(t.Context(), key)
		require.ErrorIs(t, err, cohort.ErrHeld)
		require.NotEmpty(t, receive(t, notes, "the end of the note").Events)
	}

	first := acquire(t, here, "first")
	wanted := whenWanted(first)
	try("first")
	w.open()
	receive(t, wanted, "a note that came before the watch")
	require.NoError(t, first.Release(t.Context()))

	require.Eventually(t, func() bool { return hears(t, here) }, patience, time.Millisecond)
	w.shut()
	w.fail()
	require.Eventually(t, func() bool { return !hears(t, here) }, patience, time.Millisecond)
	later := acquire(t, here, "later")
	try("later")
	w.open()
	require.Eventually(t, func() bool { return hears(t, here) }, patience, time.Millisecond)
	receive(t, whenWanted(later), "a note that came while there was no watch")
	require.NoError(t, later.Release(t.Context()))
	awaitNoKeys(t, direct, patience)
}

// hears reports whether the engine takes a key that no other process wants for what it is.
func hears(t *testing.T, e *etcdlock.Engine) bool {
	g := acquire(t, e, "which no other process wants")
	defer func() { assert.NoError(t, g.Release(t.Context())) }()
	select {
	case <-whenWanted(g):
		return false
	case <-time.After(20 * time.Millisecond):
		return true
	}
}

// watchGate holds back and breaks the watches of a client.
type watchGate struct {
	mu     sync.Mutex
	passes chan struct{} // closed while watches may begin
	breaks []context.CancelFunc
}

func (w *watchGate) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passes = make(chan struct{})
}

func (w *watchGate) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.passes)
}

// fail ends the watches that have begun.
func (w *watchGate) fail() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, end := range w.breaks {
		end()
	}
}

func (w *watchGate) option() grpc.DialOption {
	return grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if !strings.HasSuffix(method, "/Watch") {
			return streamer(ctx, desc, cc, method, opts...)
		}
		ctx, end := context.WithCancel(ctx)
		w.mu.Lock()
		passes := w.passes
		w.breaks = append(w.breaks, end)
		w.mu.Unlock()
		select {
		case <-passes:
		case <-ctx.Done():
		}
		return streamer(ctx, desc, cc, method, opts...)
	})
}

// One who waits leaves a note when the holder is next ahead, and listens. One that is granted sees who is behind.
func TestNotesAreForTheHolder(t *testing.T) {
	client := dial(t, startNode(t))
	var engines []*etcdlock.Engine
	for range 4 {
		engines = append(engines, newEngine(t, client, 6*time.Second))
	}
	held := acquire(t, engines[0], "key")
	wanted := whenWanted(held)
	awaitMark(t, client, held)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cancelled := make(chan error, 1)
	go func() {
		_, err := engines[1].Acquire(ctx, "key")
		cancelled <- err
	}()
	awaitQueue(t, client, engines[1], "key", 2)
	third := waitInQueue(t, client, engines[2], "key", 3)
	fourth := waitInQueue(t, client, engines[3], "key", 4)
	receive(t, wanted, "the note of the second")
	cancel()
	require.ErrorIs(t, receive(t, cancelled, "the cancelled wait"), context.Canceled)
	queue := awaitQueue(t, client, engines[2], "key", 3)
	notes := fmt.Sprintf("/locks/,wanted/%x/", leaseOf(t, queue[0]))
	require.Eventually(t, func() bool {
		left := keysUnder(t, client, "/locks/,wanted/")
		return len(left) == 1 && strings.HasPrefix(left[0], fmt.Sprintf("%s%x-", notes, leaseOf(t, queue[1])))
	}, patience, 5*time.Millisecond, "one note, of the third for the holder")

	require.NoError(t, held.Release(t.Context()))
	g := receive(t, third, "the lock").(*etcdlock.Grant)
	receive(t, whenWanted(g), "that the fourth is behind")
	require.NoError(t, g.Release(t.Context()))
	g = receive(t, fourth, "the lock").(*etcdlock.Grant)
	wanted = whenWanted(g)
	select {
	case <-wanted:
		assert.Fail(t, "no other process waits")
	case <-time.After(1500 * time.Millisecond): // by then the queue was looked at
	}
	require.NoError(t, g.Release(t.Context()))
	awaitNoKeys(t, client, patience)
	for _, e := range engines {
		assert.Zero(t, e.Report().Orphans, "the audit takes a note for what it is")
	}
}

// A user of concurrency.Mutex leaves no note. The holder looks.
func TestHolderLearnsOfAStockMutex(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 20*time.Second)
	held := acquire(t, e, "key")
	wanted := whenWanted(held)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	require.NoError(t, err)
	defer session.Close()
	stock := concurrency.NewMutex(session, e.Name("key"))
	locked := make(chan error, 1)
	go func() { locked <- stock.Lock(t.Context()) }()
	awaitQueue(t, client, e, "key", 2)
	began := time.Now()
	receive(t, wanted, "the look")
	t.Log("noticed after", time.Since(began)) // a second is promised, on a machine with nothing else to do
	require.NoError(t, held.Release(t.Context()))
	require.NoError(t, receive(t, locked, "their lock"))
	require.NoError(t, stock.Unlock(t.Context()))
	awaitNoKeys(t, client, patience)
}

// While notes may go unnoticed, every key counts as wanted; when the inbox is watched again, it does not.
func TestInboxThatCannotTellCountsAsWanted(t *testing.T) {
	for _, trouble := range []struct {
		name string
		make func(n *network)
	}{
		{"history is forgotten and the connection breaks", func(n *network) {
			time.Sleep(100 * time.Millisecond)
			n.set(func(_, _ string) weather { return weather{Down: true} })
			time.Sleep(100 * time.Millisecond)
			n.heal()
		}},
		{"no connection", func(n *network) {
			n.set(func(_, _ string) weather { return weather{Down: true} })
		}},
		{"nothing arrives", func(n *network) { n.set(silence) }},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			node := startNode(t)
			direct := dial(t, node)
			n := newNetwork()
			e := newEngine(t, dial(t, n.to(t, "n0", node)), 30*time.Second)
			require.Eventually(t, func() bool { return hears(t, e) }, patience, time.Millisecond)
			held := acquire(t, e, "key")
			wanted := whenWanted(held)
			compact(t, direct)
			require.Empty(t, wanted)
			began := time.Now()
			trouble.make(n)
			receive(t, wanted, "that the key counts as wanted")
			t.Log("after", time.Since(began))
			select {
			case <-held.Lost():
				require.Fail(t, "the lock is lost")
			default:
			}
			n.heal()
			require.NoError(t, held.Release(t.Context()))

			require.Eventually(t, func() bool { return hears(t, e) }, patience, time.Millisecond, "the inbox is watched again")
			held = acquire(t, e, "key")
			wanted = whenWanted(held)
			granted := waitInQueue(t, direct, newEngine(t, direct, 20*time.Second), "key", 2)
			receive(t, wanted, "a note")
			require.NoError(t, held.Release(t.Context()))
			require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
			awaitNoKeys(t, direct, patience)
		})
	}
}
