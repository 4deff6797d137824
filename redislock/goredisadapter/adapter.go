// Package goredisadapter lets package redislock use a go-redis client, for a
// single server, Sentinel or a cluster. It is a module of its own, so that
// users of rueidis do not download go-redis, and the other way round.
//
// Each call has a connection of the client's pool to itself. Calls that ask for locks or release them use at most half of its
// PoolSize at a time, in a cluster of each node's, and wait for their turn: the other half is for renewals, which a burst
// of locks does not delay. What else uses the same client can still delay them, as can another
// engine with a New of its own: give engines what one New has returned.
package goredisadapter

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-46f81e6d/keylock/redislock"
)

// New returns the client as package redislock uses it: a *redis.Client, also one made by
// NewFailoverClient, or a *redis.ClusterClient. It returns an error for another type, and for
// a client that repeats requests whose outcome is unknown: set MaxRetries to -1, so that an
// unlock that was carried out is not repeated and then taken for one that found nothing.
//
// A connection that dies silently is noticed after the client's ReadTimeout, that of a subscription after twice as much: set
// it well below the TTL. A client without one is refused too, and one with a MaxActiveConns below its PoolSize, whose calls
// fail instead of waiting for a connection.
func New(client redis.UniversalClient) (redislock.Client, error) {
	if v := reflect.ValueOf(client); client == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New("goredisadapter: nil client")
	}
	switch c := client.(type) {
	case *redis.Client:
		if c.Options().MaxRetries > 0 {
			return nil, errors.New("goredisadapter: the client repeats requests; set its MaxRetries to -1")
		}
		return bounded(adapter{
			master:    func(context.Context, string) (*redis.Client, error) { return c, nil },
			subscribe: c.Subscribe,
			patience:  c.Options().ReadTimeout,
			turns:     new(sync.Map),
		}, c.Options().PoolSize, c.Options().MaxActiveConns)
	case *redis.ClusterClient:
		if c.Options().MaxRetries > 0 {
			return nil, errors.New("goredisadapter: the client repeats requests; leave its MaxRetries 0")
		}
		return bounded(adapter{
			master: c.MasterForKey, subscribe: c.SSubscribe, moved: c.ReloadState, patience: c.Options().ReadTimeout, turns: new(sync.Map),
		}, c.Options().PoolSize, c.Options().MaxActiveConns)
	default:
		return nil, fmt.Errorf("goredisadapter: a %T has no single master for a key", client)
	}
}

// bounded returns a unless it waits for replies without a bound, or fails where it ought to wait for a connection.
func bounded(a adapter, pool, active int) (redislock.Client, error) {
	switch {
	case a.patience <= 0:
		return nil, errors.New("goredisadapter: the client waits for replies without a bound; set its ReadTimeout")
	case active > 0 && active < pool:
		return nil, errors.New("goredisadapter: calls of the client fail while others use MaxActiveConns connections; set its PoolSize to no more")
	}
	return a, nil
}

type adapter struct {
	master    func(ctx context.Context, key string) (*redis.Client, error) // of a key
	subscribe func(ctx context.Context, channels ...string) *redis.PubSub
	moved     func(ctx context.Context) // nil but in a cluster
	patience  time.Duration             // for how long a reply is waited for
	turns     *sync.Map                 // by address, a chan struct{} that receives a value for each call that is not urgent
}

// scripter is what a client and a connection have in common.
type scripter interface {
	EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd
	Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd
}

func (a adapter) Run(ctx context.Context, call redislock.Call) (reply []string, acknowledged int, err error) {
	master, err := a.master(ctx, call.Keys[0])
	if err != nil {
		return nil, 0, err
	}
	if !call.Urgent {
		turns := a.turnsAt(master)
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	if call.Replicas == 0 {
		reply, err = a.run(ctx, master, call)
		return reply, 0, err
	}
	own := master.Conn()
	defer own.Close()
	if reply, err = a.run(ctx, own, call); err != nil {
		return nil, 0, err
	}
	n, err := own.Wait(ctx, call.Replicas, call.Within).Result()
	return reply, int(n), err
}

// turnsAt returns the turns at a master, which are half of the connections to it. With a PoolSize of 1 an urgent call waits for
// one other.
func (a adapter) turnsAt(master *redis.Client) chan struct{} {
	o := master.Options()
	turns, _ := a.turns.LoadOrStore(o.Addr, make(chan struct{}, max(1, o.PoolSize/2)))
	return turns.(chan struct{})
}

func (a adapter) run(ctx context.Context, c scripter, call redislock.Call) ([]string, error) {
	args := make([]any, len(call.Args))
	for i, arg := range call.Args {
		args[i] = arg
	}
	reply, err := c.EvalSha(ctx, call.Script.SHA1, call.Keys, args...).StringSlice()
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		reply, err = c.Eval(ctx, call.Script.Source, call.Keys, args...).StringSlice()
	}
	if err != nil && a.moved != nil {
		a.moved(ctx) // the slot may have another master now, which the next request will go to
	}
	return reply, err
}

func (a adapter) Subscribe(ctx context.Context, channel string, subscribed func(), message func(string)) error {
	subscription := a.subscribe(ctx, channel)
	defer subscription.Close()
	defer context.AfterFunc(ctx, func() { _ = subscription.Close() })() // Receive does not heed ctx while it reads
	var pinged atomic.Bool                                              // since the last that was received
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { // nothing need be published for long: only the reply to a ping shows that the connection lives
		patience := time.NewTimer(a.patience)
		defer patience.Stop()
		for {
			select {
			case <-patience.C:
				if pinged.Swap(true) || subscription.Ping(ctx) != nil {
					_ = subscription.Close()
					return
				}
				patience.Reset(a.patience) // however long the ping took
			case <-over:
				return
			}
		}
	})
	defer watch.Wait()
	defer close(over)
	for {
		received, err := subscription.Receive(ctx)
		if s, ok := received.(*redis.Subscription); ok && strings.HasSuffix(s.Kind, "unsubscribe") {
			err = fmt.Errorf("goredisadapter: %s is not at that server any more", channel)
		}
		if err != nil {
			if a.moved != nil && ctx.Err() == nil {
				a.moved(ctx)
			}
			return err
		}
		pinged.Store(false)
		switch r := received.(type) {
		case *redis.Subscription:
			subscribed()
		case *redis.Message:
			message(r.Payload)
		}
	}
}
