package etcdlock_test

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// A service's locks, for all its processes. TLS and credentials are the client's.
func Example() {
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{"127.0.0.1:2379"},
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: time.Second,
	})
	if err != nil {
		return
	}
	defer client.Close()
	engine, err := etcdlock.New(client, etcdlock.WithTTL(10*time.Second), etcdlock.WithPrefix("/locks/"))
	if err != nil {
		return
	}
	locks := cohort.Start(ctx, engine)
	defer locks.Close()

	_ = locks.Do(ctx, "order/42", func(ctx context.Context) error {
		return save(ctx, cohort.TokenFrom(ctx))
	})
}

// save stands for a resource that refuses a token smaller than one it has seen.
func save(context.Context, cohort.Token) error { return nil }

// What is kept in etcd itself needs no memory for tokens: the transaction that writes it asks
// whether the lock is still held.
func ExampleGrant_IsOwner() {
	save := func(ctx context.Context, client *clientv3.Client, lock cohort.Lock, order string) error {
		stillHeld := lock.Grant().(*etcdlock.Grant).IsOwner()
		done, err := client.Txn(ctx).If(stillHeld).Then(clientv3.OpPut("/orders/42", order)).Commit()
		switch {
		case err != nil:
			return err
		case !done.Succeeded:
			return errors.New("another process has the order")
		default:
			return nil
		}
	}
	_ = save
}
