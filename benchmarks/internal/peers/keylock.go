package peers

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/anthdm/hollywood/actor"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/plain"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Keylock is this library.
var Keylock = Peer{
	Name:   "keylock",
	About:  "this library",
	Traits: Traits{FIFO: true, Context: true},
	Open:   func() Locker { return openKeylock() },
}

// KeylockKept is this library with kept grants, with room for more keys than any workload has
// in use at a time.
var KeylockKept = Peer{
	Name:   "keylock kept",
	About:  "this library with kept grants, 16,384 cells",
	Traits: Traits{FIFO: true, Context: true, Study: true},
	Open:   func() Locker { return openKeylock(keylock.WithKeptGrants(16_384)) },
}

func openKeylock(opts ...keylock.Option) Locker {
	return keylocks{keylock.Start[string](context.Background(), opts...)}
}

// KeylockParts spreads the keys over two managers by hash. There is then no one
// history, no one WaitIdle and no lock on many keys across the parts.
var KeylockParts = Peer{
	Name:   "keylock x2",
	About:  "two managers of this library, keys spread over them by hash",
	Traits: Traits{FIFO: true, Context: true, Spread: true, Study: true},
	Open: func() Locker {
		l := parts{seed: maphash.MakeSeed()}
		for i := range l.managers {
			l.managers[i] = keylock.Start[string](context.Background())
		}
		return managed[parts, keylock.Lock[string]]{l}
	},
}

type parts struct {
	seed     maphash.Seed
	managers [2]*keylock.Manager[string]
}

func (p parts) Acquire(ctx context.Context, key string) (keylock.Lock[string], error) {
	return p.managers[maphash.String(p.seed, key)%uint64(len(p.managers))].Acquire(ctx, key)
}

func (p parts) Close() error {
	for _, m := range p.managers {
		m.Close()
	}
	return nil
}

// manager is what the adapter below needs.
type manager[L lock] interface {
	Acquire(ctx context.Context, key string) (L, error)
	Close() error
}

type lock interface{ Release() }

// managed is the adapter of those that are only compared with keylock, and cost several times its type parameters.
type managed[M manager[L], L lock] struct{ m M }

func (l managed[M, L]) Client() Client { return &managedClient[M, L]{m: l.m} }
func (l managed[M, L]) Close()         { l.m.Close() }

type managedClient[M manager[L], L lock] struct {
	m    M
	lock L
}

func (c *managedClient[M, L]) Lock(ctx context.Context, key string) (err error) {
	c.lock, err = c.m.Acquire(ctx, key)
	return err
}

func (c *managedClient[M, L]) Unlock() { c.lock.Release() }

// Plain is the same design as keylock's without any tuning.
var Plain = Peer{
	Name:   "plain",
	About:  "keylock's design without tuning: one three-way select per call, one allocation per request",
	Traits: Traits{FIFO: true, Context: true, Study: true},
	Open: func() Locker {
		return managed[*plain.Manager, plain.Lock]{plain.Start()}
	},
}

// Table is the ceiling of the design: keylock's own table, called by the one goroutine
// that it is for, without any message.
var Table = Peer{
	Name:   "table",
	About:  "no lock: this library's table alone, called by one goroutine",
	Traits: Traits{Serial: true, Study: true},
	Open: func() Locker {
		return tableLocker{table.New[string](table.Config{})}
	},
}

type tableLocker struct {
	table *table.Table[string]
}

func (l tableLocker) Client() Client { return &tableClient{table: l.table} }
func (l tableLocker) Close()         {}

type tableClient struct {
	table   *table.Table[string]
	request table.Request[string]
	token   table.Token[string] // of its grant, once it is granted
}

// Lock joins the queue of key and does not wait.
func (c *tableClient) Lock(_ context.Context, key string) error {
	c.request = table.Request[string]{Key: key, Tag: c}
	c.token = c.table.Join(&c.request).Token
	return nil
}

func (c *tableClient) Unlock() {
	for _, grant := range c.table.Release(c.token) {
		grant.Tag.(*tableClient).token = grant.Token
	}
}

// PingPong is the floor of the design: a round trip to a goroutine and nothing else.
var PingPong = Peer{
	Name:   "ping-pong",
	About:  "no lock: a bare round trip to a goroutine over buffered channels",
	Traits: Traits{Echo: true},
	Open: func() Locker {
		p := pingPong{pings: make(chan *pingPongClient, 128), done: make(chan struct{})}
		go p.echo()
		return p
	},
}

type pingPong struct {
	pings chan *pingPongClient
	done  chan struct{} // closed when echo has returned
}

func (p pingPong) echo() {
	defer close(p.done)
	for c := range p.pings {
		c.pong <- struct{}{}
	}
}

func (p pingPong) Client() Client {
	return &pingPongClient{pings: p.pings, pong: make(chan struct{}, 1)}
}

func (p pingPong) Close() {
	close(p.pings)
	<-p.done
}

type pingPongClient struct {
	pings chan<- *pingPongClient
	pong  chan struct{}
}

func (c *pingPongClient) Lock(context.Context, string) error {
	c.pings <- c
	<-c.pong
	return nil
}

func (c *pingPongClient) Unlock() {}

// Hollywood is the actor world's own figure for a request and its reply.
var Hollywood = Peer{
	Name:   "hollywood",
	About:  "no lock: a request and reply on github.com/anthdm/hollywood v1.0.5",
	Traits: Traits{Echo: true},
	Open: func() Locker {
		engine, err := actor.NewEngine(actor.NewEngineConfig())
		if err != nil {
			panic(err) // it fails only with a remote
		}
		echo := engine.SpawnFunc(func(c *actor.Context) {
			if _, ok := c.Message().(ping); ok {
				c.Respond(pong{})
			}
		}, "echo")
		return hollywood{engine, echo}
	},
}

type (
	ping struct{}
	pong struct{}
)

type hollywood struct {
	engine *actor.Engine
	echo   *actor.PID
}

func (l hollywood) Client() Client { return l }
func (l hollywood) Close()         { <-l.engine.Poison(l.echo).Done() }

// Lock asks again where the reply does not come: each reply goes to an actor with a random
// number for a name, and of two that have the same at the same time one gets none.
func (l hollywood) Lock(context.Context, string) error {
	for {
		_, err := l.engine.Request(l.echo, ping{}, time.Second).Result()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

func (l hollywood) Unlock() {}
