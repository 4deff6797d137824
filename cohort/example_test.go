package cohort_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// Two processes share a key. A later holder has a greater token.
func Example() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	here, there := cohort.Start(ctx, store.Engine()), cohort.Start(ctx, store.Engine())
	defer here.Close()
	defer there.Close()

	lock, err := here.Acquire(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = there.TryAcquire(ctx, "order/42")
	fmt.Println("held, says the other process:", errors.Is(err, cohort.ErrHeld))
	first := lock.Token()
	if err := lock.Release(); err != nil {
		fmt.Println("what was done may have been refused:", err)
	}

	err = there.Do(ctx, "order/42", func(ctx context.Context) error {
		fmt.Println("its token is greater:", cohort.TokenFrom(ctx).Compare(first) > 0)
		return nil
	})
	fmt.Println(err)
	// Output:
	// held, says the other process: true
	// its token is greater: true
	// <nil>
}

// A service that calls Do, and nothing else, runs with the manager of one process and with that of many.
func ExampleManager_Do() {
	type locks interface {
		Do(ctx context.Context, key string, fn func(context.Context) error) error
	}
	pay := func(ctx context.Context, l locks, order string) error {
		return l.Do(ctx, "order/"+order, func(ctx context.Context) error {
			fmt.Println("pays", order)
			return nil
		})
	}
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	one, many := keylock.Start[string](ctx), cohort.Start(ctx, store.Engine())
	defer one.Close()
	defer many.Close()
	fmt.Println(pay(ctx, one, "41"), pay(ctx, many, "42"))
	// Output:
	// pays 41
	// pays 42
	// <nil> <nil>
}

// Who holds a key, in any process?
func ExampleManager_Inspect() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	here, there := cohort.Start(ctx, store.Engine()), cohort.Start(ctx, store.Engine())
	defer here.Close()
	defer there.Close()
	lock, err := there.Acquire(ctx, "order/42")
	if err != nil {
		return
	}
	info, err := here.Inspect(ctx, "order/42")
	if err != nil {
		return
	}
	fmt.Println("in this process:", info.Held, info.Claim.State)
	fmt.Println("in all of them:", info.Engine[0].Process, "with epoch", info.Engine[0].Epoch)
	_ = lock.Release()
	// Output:
	// in this process: 0 none
	// in all of them: process 2 with epoch 1
}

// Two accounts are locked together, in every process and in whichever order they are named.
func ExampleManager_AcquireAll() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	here, there := cohort.Start(ctx, store.Engine()), cohort.Start(ctx, store.Engine())
	defer here.Close()
	defer there.Close()
	transfer := func(m *cohort.Manager, from, to string) error {
		locks, err := m.AcquireAll(ctx, from, to)
		if err != nil {
			return err
		}
		ctx := locks.Context() // ends when either is lost
		// Each account remembers the greatest token it has seen, and refuses a smaller one: locks.Token(from).
		return errors.Join(ctx.Err(), locks.Release())
	}
	back := make(chan error)
	go func() { back <- transfer(there, "account/2", "account/1") }()
	fmt.Println(transfer(here, "account/1", "account/2"), <-back)
	// Output:
	// <nil> <nil>
}
