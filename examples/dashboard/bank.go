package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

const (
	tellers  = 48
	accounts = 40
	popular  = "account/7"
	patience = 3 * time.Second
)

// openBank starts all who work with accounts. All of them stop when ctx ends, and can be
// waited for.
func openBank(ctx context.Context, locks *keylock.Manager[string]) *sync.WaitGroup {
	var staff sync.WaitGroup
	for n := range tellers {
		staff.Go(func() {
			teller := locks.Session(fmt.Sprintf("teller %d", n))
			for ctx.Err() == nil {
				pay(ctx, teller)
			}
		})
	}
	staff.Go(func() {
		for ctx.Err() == nil {
			printStatement(ctx, locks.Session("monthly statements"))
		}
	})
	return &staff
}

// pay takes money from an account, which takes some time. Customers go away when they have
// waited for too long.
func pay(ctx context.Context, teller *keylock.Session[string]) {
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lock, err := teller.Acquire(patient, account())
	if err != nil {
		return
	}
	defer lock.Release()
	work(ctx, time.Duration(rand.ExpFloat64()*float64(25*time.Millisecond)))
}

// printStatement is the culprit: it holds an account that most others want while it talks to a
// printer.
func printStatement(ctx context.Context, job *keylock.Session[string]) {
	lock, err := job.Acquire(ctx, popular)
	if err != nil {
		return
	}
	work(ctx, 30*time.Second) // paper jam
	lock.Release()
	work(ctx, 3*time.Second)
}

// account chooses one, and some more often than others.
func account() string { return fmt.Sprintf("account/%d", int(rand.ExpFloat64()*12)%accounts) }

// work takes time, until ctx ends.
func work(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
