// Package rueidisadapter lets package redislock use a rueidis client, for a
// single server, Sentinel or a cluster.
package rueidisadapter

import (
	"context"

	"github.com/redis/rueidis"

	"github.com/seed-46f81e6d/keylock/redislock"
)

// New returns the client as package redislock uses it. A connection that dies
// silently is noticed after the client's ConnWriteTimeout: set it well below the TTL. A nil client panics.
func New(client rueidis.Client) redislock.Client {
	if client == nil {
		panic("rueidisadapter: New with a nil client")
	}
	return adapter{client}
}

type adapter struct {
	client rueidis.Client
}

func (a adapter) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	// Nothing need be done for an urgent call: on a shared connection none waits for the reply to another.
	// On the shared connection, a lone request is written and read by its own goroutine, until two come at once.
	aside := call.Aside && a.client.Mode() != rueidis.ClientModeCluster
	if call.Replicas == 0 && !aside {
		reply, err := run(ctx, a.client, call)
		return reply, 0, err
	}
	var reply []string
	var acknowledged int64
	err := a.client.Dedicated(func(own rueidis.DedicatedClient) (err error) {
		if reply, err = run(ctx, own, call); err != nil || call.Replicas == 0 {
			return err
		}
		acknowledged, err = own.Do(ctx, own.B().Wait().Numreplicas(int64(call.Replicas)).Timeout(call.Within.Milliseconds()).Build()).AsInt64()
		return err
	})
	return reply, int(acknowledged), err
}

func run(ctx context.Context, c rueidis.CoreClient, call redislock.Call) ([]string, error) {
	keys := int64(len(call.Keys))
	reply, err := c.Do(ctx, c.B().Evalsha().Sha1(call.Script.SHA1).Numkeys(keys).Key(call.Keys...).Arg(call.Args...).Build()).AsStrSlice()
	if e, ok := rueidis.IsRedisErr(err); ok && e.IsNoScript() {
		reply, err = c.Do(ctx, c.B().Eval().Script(call.Script.Source).Numkeys(keys).Key(call.Keys...).Arg(call.Args...).Build()).AsStrSlice()
	}
	return reply, err
}

func (a adapter) Subscribe(ctx context.Context, channel string, subscribed func(), message func(string)) error {
	begun := func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" || s.Kind == "ssubscribe" {
			subscribed()
		}
	}
	receive := func(m rueidis.PubSubMessage) { message(m.Message) }
	if a.client.Mode() == rueidis.ClientModeCluster { // a connection of its own for each of many channels would be too much
		return a.client.Receive(rueidis.WithOnSubscriptionHook(ctx, begun), a.client.B().Ssubscribe().Channel(channel).Build(), receive)
	}
	// On a connection of its own: what is subscribed on the shared one makes every request there pass two more goroutines. Not
	// by Receive, which has each message pass one more.
	return a.client.Dedicated(func(own rueidis.DedicatedClient) error {
		ended := own.SetPubSubHooks(rueidis.PubSubHooks{OnSubscription: begun, OnMessage: receive})
		if err := own.Do(ctx, own.B().Subscribe().Channel(channel).Build()).Error(); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}
