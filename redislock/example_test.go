package redislock_test

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// A service's locks, for all its processes. TLS and credentials are the client's.
func Example() {
	ctx := context.Background()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:      []string{"127.0.0.1:6379"},
		ConnWriteTimeout: 2 * time.Second,
	})
	if err != nil {
		return
	}
	defer client.Close()
	engine, err := redislock.New(rueidisadapter.New(client), redislock.WithTTL(10*time.Second))
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

// What is kept in the same Redis needs no memory for tokens: the script that writes it asks whether
// the lock is still held.
func ExampleGrant_Guard() {
	setIfHeld := rueidis.NewLuaScript(`
		if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
			return redis.error_reply('FENCED')
		end
		return redis.call('SET', KEYS[2], ARGV[3])`)

	save := func(ctx context.Context, client rueidis.Client, engine *redislock.Engine, lock cohort.Lock, order string) error {
		grant, ok := lock.Grant().(*redislock.Grant)
		if !ok {
			return errors.New("no lock")
		}
		hash, field, epoch := grant.Guard()
		data := engine.Tag(lock.Key()) + ":orders:42" // in the slot of the lock
		return setIfHeld.Exec(ctx, client, []string{hash, data}, []string{field, epoch, order}).Error()
	}
	_ = save
}
