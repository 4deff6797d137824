package cohort_test

import (
	"context"
	"fmt"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// Two processes share a key. Whoever holds it has a greater token than whoever held it before.
func Example() {
	ctx := context.Background()
	store := cohorttest.NewStore() // in its place: etcd, and etcdlock.New for each process
	defer store.Close()
	here, there := cohort.Start(ctx, store.Engine()), cohort.Start(ctx, store.Engine())
	defer here.Close()
	defer there.Close()

	lock, err := here.Acquire(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, ok := there.TryAcquire(ctx, "order/42")
	fmt.Println("the other process gets it meanwhile:", ok)
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
	// the other process gets it meanwhile: false
	// its token is greater: true
	// <nil>
}
