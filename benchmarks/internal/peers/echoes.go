package peers

import (
	"context"
	"errors"
	"time"

	"github.com/anthdm/hollywood/actor"
)

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
