package inorder_test

import (
	"context"
	"testing"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

// Work that does nothing, from Go to its end: all of what a group costs.
func BenchmarkGo(b *testing.B) {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = keyName(i)
	}
	run := func(b *testing.B, g group, distinct int) {
		b.ReportAllocs()
		for i := range b.N {
			if err := g.Go(context.Background(), keys[i%distinct], nothing); err != nil {
				b.Fatal(err)
			}
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	for _, distinct := range []int{1, 50, 1024} {
		name := "keys=" + keyName(distinct)[len("key-"):]
		b.Run("New/"+name, func(b *testing.B) { run(b, inorder.New[string](context.Background(), 64), distinct) })
		b.Run("Over/"+name, func(b *testing.B) {
			m := keylock.Start[string](context.Background())
			defer m.Close()
			run(b, inorder.Over(context.Background(), m, 64), distinct)
		})
	}
	b.Run("New/one at a time", func(b *testing.B) { oneAtATime(b, inorder.New[string](context.Background(), 64)) })
	b.Run("Over/one at a time", func(b *testing.B) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		oneAtATime(b, inorder.Over(context.Background(), m, 64))
	})
}

// oneAtATime waits for each work before the next.
func oneAtATime(b *testing.B, g group) {
	b.ReportAllocs()
	ended := make(chan struct{}, 1)
	for range b.N {
		g.Go(context.Background(), "a", func(context.Context) error { ended <- struct{}{}; return nil })
		<-ended
	}
	g.Wait()
}
