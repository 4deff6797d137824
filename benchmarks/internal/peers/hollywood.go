package peers

import (
	"context"
	"errors"
	"time"

	"github.com/anthdm/hollywood/actor"
)

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
