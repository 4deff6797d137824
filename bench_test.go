package keylock_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

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
