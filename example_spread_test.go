package keylock_test

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/seed-46f81e6d/keylock"
)

// A spread is several managers, each with a part of the keys, for a machine on which one
// owner has become the bottleneck. It gives up what one owner knows: there is a history,
// a WaitIdle and a Stats for each part, and no AcquireAll across parts.
type spread[K comparable] struct {
	seed  maphash.Seed
	parts []*keylock.Manager[K]
}

func startSpread[K comparable](ctx context.Context, parts int) spread[K] {
	s := spread[K]{seed: maphash.MakeSeed()}
	for range parts {
		s.parts = append(s.parts, keylock.Start[K](ctx))
	}
	return s
}

// of returns the manager of a key, always the same.
func (s spread[K]) of(key K) *keylock.Manager[K] {
	return s.parts[maphash.Comparable(s.seed, key)%uint64(len(s.parts))]
}

// When Stats.Busy comes near 1, the owner is the bottleneck: spread the keys over several.
func Example_severalManagers() {
	ctx, cancel := context.WithCancel(context.Background())
	locks := startSpread[string](ctx, 4)

	visits := map[string]*int{"ann": new(int), "bob": new(int), "cid": new(int)}
	var work sync.WaitGroup
	for user, count := range visits {
		for range 100 {
			work.Go(func() {
				locks.of(user).Do(ctx, user, func(context.Context) error {
					*count++
					return nil
				})
			})
		}
	}
	work.Wait()
	fmt.Println(*visits["ann"], *visits["bob"], *visits["cid"])

	cancel() // ends them all
	for _, part := range locks.parts {
		<-part.Done()
	}
	// Output: 100 100 100
}
