package keylock_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// The floor of this design: one round trip to a goroutine over buffered channels.
func BenchmarkChannelPingPong(b *testing.B) {
	type request struct{ reply chan struct{} }
	mailbox := make(chan *request, 1)
	defer close(mailbox)
	go func() {
		for r := range mailbox {
			r.reply <- struct{}{}
		}
	}()
	r := &request{make(chan struct{}, 1)}
	b.ReportAllocs()
	for b.Loop() {
		mailbox <- r
		<-r.reply
	}
}

func benchManager(b *testing.B) (context.Context, *keylock.Manager[int]) {
	ctx, cancel := context.WithCancel(context.Background())
	m := keylock.Start[int](ctx)
	b.Cleanup(func() { m.Close(); cancel() })
	b.ReportAllocs()
	return ctx, m
}

func BenchmarkAcquireRelease(b *testing.B) {
	ctx, m := benchManager(b)
	for b.Loop() {
		l, _ := m.Acquire(ctx, 1)
		l.Release()
	}
}

func BenchmarkTryAcquireRelease(b *testing.B) {
	_, m := benchManager(b)
	for b.Loop() {
		l, _ := m.TryAcquire(1)
		l.Release()
	}
}

func BenchmarkReserveWaitRelease(b *testing.B) {
	ctx, m := benchManager(b)
	for b.Loop() {
		l, _ := m.Reserve(1).Wait(ctx)
		l.Release()
	}
}

// concurrently splits b.N among goroutines.
func concurrently(b *testing.B, goroutines int, op func(goroutine int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		n := b.N / goroutines
		if g < b.N%goroutines {
			n++
		}
		wg.Go(func() {
			for range n {
				op(g)
			}
		})
	}
	wg.Wait()
}

func BenchmarkHotKey64(b *testing.B) {
	ctx, m := benchManager(b)
	concurrently(b, 64, func(int) {
		l, _ := m.Acquire(ctx, 1)
		l.Release()
	})
}

func BenchmarkDistinctKeys64(b *testing.B) {
	ctx, m := benchManager(b)
	concurrently(b, 64, func(g int) {
		l, _ := m.Acquire(ctx, g)
		l.Release()
	})
}

func BenchmarkDistinctKeys1000(b *testing.B) {
	ctx, m := benchManager(b)
	concurrently(b, 1000, func(g int) {
		l, _ := m.Acquire(ctx, g)
		l.Release()
	})
}

// Sixteen keys in one request, against the same sixteen one by one in sorted order.
func BenchmarkSixteenKeysAtOnce(b *testing.B) {
	ctx, m := benchManager(b)
	for b.Loop() {
		l, _ := m.AcquireAll(ctx, sixteen[:]...)
		l.Release()
	}
}

func BenchmarkSixteenKeysOneByOne(b *testing.B) {
	ctx, m := benchManager(b)
	var held [16]keylock.Lock[int]
	for b.Loop() {
		for i, key := range sixteen {
			held[i], _ = m.Acquire(ctx, key)
		}
		for _, l := range held {
			l.Release()
		}
	}
}

var sixteen = [16]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// A session that must wait behind a chain of others, each of which waits for the next:
// what the search for a cycle costs when there is none.
func BenchmarkCycleSearch(b *testing.B) {
	for _, chain := range []int{1, 10, 100, 1000} {
		b.Run(strconv.Itoa(chain), func(b *testing.B) {
			ctx, m := benchManager(b)
			sessions := make([]*keylock.Session[int], chain)
			for i := range sessions {
				sessions[i] = m.Session("in the chain")
				sessions[i].Reserve(i)
			}
			for i, s := range sessions[:chain-1] {
				s.Reserve(i + 1)
			}
			last := m.Session("last")
			for b.Loop() {
				last.Reserve(0).Cancel()
				m.Stats(ctx) // returns when the owner has served both
			}
		})
	}
}

// What each option that notes something costs an acquisition and its release.
func BenchmarkTracking(b *testing.B) {
	slow := keylock.WithSlowLog(slog.New(slog.DiscardHandler), time.Minute)
	for _, v := range []struct {
		name string
		opts []keylock.Option
	}{
		{"off", nil},
		{"times", []keylock.Option{keylock.WithHoldTimes()}},
		{"callers", []keylock.Option{keylock.WithCallers()}},
		{"slowlog", []keylock.Option{slow}},
		{"all", []keylock.Option{slow, keylock.WithCallers()}},
	} {
		b.Run(v.name, func(b *testing.B) {
			ctx := b.Context()
			m := keylock.Start[int](context.Background(), v.opts...)
			defer m.Close()
			b.ReportAllocs()
			for b.Loop() {
				l, _ := m.Acquire(ctx, 1)
				l.Release()
			}
		})
	}
}

// What a look costs all others, because no request is served meanwhile.
func BenchmarkLook(b *testing.B) {
	ctx := context.Background()
	m := keylock.Start[int](ctx, keylock.WithHoldTimes())
	defer m.Close()
	for key := range 1_000_000 {
		m.Reserve(key)
		if key%10 == 0 {
			m.Reserve(key)
		}
	}
	for _, v := range []struct {
		name string
		look func() error
	}{
		{"stats", func() error { _, err := m.Stats(ctx); return err }},
		{"inspect", func() error { _, err := m.Inspect(ctx, 10); return err }},
		{"top20", func() error { _, err := m.Top(ctx, 20); return err }},
		{"snapshot1e6", func() error { _, err := m.Snapshot(ctx); return err }},
	} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := v.look(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A call that looks at all keys calls in what is kept.
func BenchmarkStatsWithKeptGrants(b *testing.B) {
	for _, n := range []int{1_000, 16_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := keylock.Start[int](b.Context(), keylock.WithKeptGrants(4*n))
			defer m.Close()
			for b.Loop() {
				b.StopTimer()
				for key := range n {
					l, _ := m.TryAcquire(key)
					l.Release()
				}
				b.StartTimer()
				m.Stats(b.Context())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/key")
		})
	}
}
