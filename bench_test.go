package keylock_test

import (
	"context"
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
