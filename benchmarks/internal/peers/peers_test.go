package peers

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs test for every peer that is chosen, with the peer opened.
func each(t *testing.T, chosen func(Peer) bool, test func(*testing.T, Locker)) {
	for _, p := range All() {
		if chosen(p) {
			t.Run(p.Name, func(t *testing.T) {
				l := p.Open()
				defer l.Close()
				test(t, l)
			})
		}
	}
}

// eachInBubble is each in a bubble per peer.
func eachInBubble(t *testing.T, chosen func(Peer) bool, test func(*testing.T, Locker)) {
	for _, p := range All() {
		if chosen(p) {
			t.Run(p.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := p.Open()
					defer l.Close()
					test(t, l)
				})
			})
		}
	}
}

func locks(p Peer) bool { return !p.Echo && !p.Serial }
func nests(p Peer) bool { return locks(p) && !p.Striped }

func TestLocksExclude(t *testing.T) {
	each(t, locks, func(t *testing.T, l Locker) {
		assert.Zero(t, intrusions(t, l.Client))
	})
}

func TestIntrusionsAreSeen(t *testing.T) {
	assert.NotZero(t, intrusions(t, func() Client { return lawless{} }))
}

// lawless locks nothing.
type lawless struct{}

func (lawless) Lock(context.Context, string) error { return nil }
func (lawless) Unlock()                            {}

// intrusions lets goroutines lock few keys and counts how often one met another.
func intrusions(t *testing.T, newClient func() Client) int {
	const goroutines, turns = 8, 500
	inside := make(map[string]chan struct{}) // full while a client is there
	var keys []string
	for i := range 3 {
		key := fmt.Sprintf("key/%d", i)
		keys = append(keys, key)
		inside[key] = make(chan struct{}, 1)
	}
	var crowd sync.WaitGroup
	met := make([]int, goroutines)
	for g := range goroutines {
		client := newClient()
		crowd.Go(func() {
			for turn := range turns {
				key := keys[(g+turn)%len(keys)]
				if !assert.NoError(t, client.Lock(t.Context(), key)) {
					return
				}
				select {
				case inside[key] <- struct{}{}:
					linger()
					<-inside[key]
				default:
					met[g]++
				}
				client.Unlock()
			}
		})
	}
	crowd.Wait()
	total := 0
	for _, n := range met {
		total += n
	}
	return total
}

func TestFIFOPeersGrantInTheOrderOfArrival(t *testing.T) {
	fifo := func(p Peer) bool { return p.FIFO }
	eachInBubble(t, fifo, func(t *testing.T, l Locker) {
		holder := l.Client()
		require.NoError(t, holder.Lock(t.Context(), "key"))
		var order, granted []int
		for n := range 10 {
			order = append(order, n)
			client := l.Client()
			go func() {
				assert.NoError(t, client.Lock(t.Context(), "key"))
				granted = append(granted, n) // under the lock
				client.Unlock()
			}()
			synctest.Wait()
		}
		holder.Unlock()
		synctest.Wait()
		assert.Equal(t, order, granted)
	})
}

func TestWaitsEndWithTnextContext(t *testing.T) {
	cancels := func(p Peer) bool { return p.Context }
	eachInBubble(t, cancels, func(t *testing.T, l Locker) {
		holder := l.Client()
		require.NoError(t, holder.Lock(t.Context(), "key"))

		ctx, cancel := context.WithCancel(t.Context())
		quitter, next := l.Client(), l.Client()
		var quit, granted bool
		go func() {
			assert.ErrorIs(t, quitter.Lock(ctx, "key"), context.Canceled)
			quit = true
		}()
		synctest.Wait()
		go func() {
			assert.NoError(t, next.Lock(t.Context(), "key"))
			granted = true
		}()
		synctest.Wait()
		assert.False(t, quit)

		cancel()
		synctest.Wait()
		assert.True(t, quit)
		assert.False(t, granted)

		holder.Unlock()
		synctest.Wait()
		assert.True(t, granted)
		next.Unlock()
	})
}

// TestGrantsSurviveCancellation cancels waits at the moment of tnext grant: each either
// has the lock or does not, and the key goes on to the next.
func TestGrantsSurviveCancellation(t *testing.T) {
	cancels := func(p Peer) bool { return p.Context }
	each(t, cancels, func(t *testing.T, l Locker) {
		const turns = 2000
		patience, giveUp := context.WithTimeout(t.Context(), time.Minute)
		defer giveUp()
		holder, waiter := l.Client(), l.Client()
		for turn := range turns {
			require.NoError(t, holder.Lock(patience, "key"))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- waiter.Lock(ctx, "key") }()
			linger()
			if turn%2 == 0 {
				cancel()
				holder.Unlock() // most often before the waiter has noticed
			} else {
				holder.Unlock()
				cancel()
			}
			if err := <-ended; err == nil {
				waiter.Unlock()
			} else {
				require.ErrorIs(t, err, context.Canceled)
			}
		}
		require.NoError(t, holder.Lock(patience, "key"))
		holder.Unlock()
	})
}

func TestReadersShareAndWritersDoNot(t *testing.T) {
	var tested []string
	for _, p := range All() {
		l := p.Open()
		if _, ok := l.Client().(SharedClient); !ok {
			l.Close()
			continue
		}
		l.Close()
		tested = append(tested, p.Name)
		t.Run(p.Name, func(t *testing.T) {
			l := p.Open() // in no bubble, because one does not see that a mutex waits
			defer l.Close()
			a, b, writer := l.Client().(SharedClient), l.Client().(SharedClient), l.Client()
			require.NoError(t, a.LockShared(t.Context(), "key"))
			require.NoError(t, b.LockShared(t.Context(), "key"))
			written := make(chan struct{})
			go func() {
				defer close(written)
				assert.NoError(t, writer.Lock(t.Context(), "key"))
				writer.Unlock()
			}()
			a.Unlock()
			linger()
			select {
			case <-written:
				assert.Fail(t, "written while it was read")
			default:
			}
			b.Unlock()
			<-written
		})
	}
	assert.Contains(t, tested, "keylock")
}

func TestManyKeysAreLockedTogether(t *testing.T) {
	eachInBubble(t, func(p Peer) bool { return nests(p) && p.Context }, func(t *testing.T, l Locker) {
		keys := []string{"a", "b", "c"}
		many := Many(l)
		for range 2 { // the second time with clients that were used before
			require.NoError(t, many.LockAll(t.Context(), keys))
			granted := make([]bool, len(keys))
			for i, key := range keys {
				client := l.Client()
				go func() {
					assert.NoError(t, client.Lock(t.Context(), key))
					granted[i] = true
					client.Unlock()
				}()
				synctest.Wait()
			}
			assert.NotContains(t, granted, true)
			many.Unlock()
			synctest.Wait()
			assert.NotContains(t, granted, false)
		}
	})
}

func TestManyKeysAreFreedWhenOneIsNotGranted(t *testing.T) {
	eachInBubble(t, func(p Peer) bool { return nests(p) && p.Context }, func(t *testing.T, l Locker) {
		holder, other := l.Client(), l.Client()
		require.NoError(t, holder.Lock(t.Context(), "b"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Many(l).LockAll(ctx, []string{"a", "b"}) }()
		synctest.Wait()
		cancel()
		assert.ErrorIs(t, <-ended, context.Canceled)
		require.NoError(t, other.Lock(t.Context(), "a"))
		other.Unlock()
		holder.Unlock()
	})
}

func TestEchoesAnswer(t *testing.T) {
	each(t, func(p Peer) bool { return p.Echo }, func(t *testing.T, l Locker) {
		client := l.Client()
		for range 100 {
			require.NoError(t, client.Lock(t.Context(), "key"))
			client.Unlock()
		}
	})
}

func TestTableHandsOn(t *testing.T) {
	l := Table.Open()
	defer l.Close()
	a, b := l.Client().(*tableClient), l.Client().(*tableClient)
	require.NoError(t, a.Lock(t.Context(), "key"))
	require.NoError(t, b.Lock(t.Context(), "key"))
	assert.True(t, a.token.Live())
	assert.False(t, b.token.Live())
	a.Unlock()
	assert.False(t, a.token.Live())
	assert.True(t, b.token.Live())
}

func TestPeersAreFoundByName(t *testing.T) {
	chosen, err := Named("keylock, moby/locker")
	require.NoError(t, err)
	require.Len(t, chosen, 2)
	assert.Equal(t, "moby/locker", chosen[1].Name)

	_, err = Named("keylock,unknown")
	assert.ErrorContains(t, err, `no peer is called "unknown"; there are keylock, `)

	var names []string
	for _, p := range All() {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	assert.Equal(t, slices.Compact(slices.Clone(names)), names)
}

// linger gives others a chance to come in between.
func linger() {
	for range 3 {
		runtime.Gosched()
	}
}
