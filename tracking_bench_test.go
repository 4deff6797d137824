package keylock_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

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
