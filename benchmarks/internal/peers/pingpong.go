package peers

import "context"

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
