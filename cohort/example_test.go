package cohort_test

import (
	"context"
	"errors"
	"fmt"

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
