//go:build explore

package keylock

import "context"

// A gate asks the scheduler, where there is one, to go on.
type gate[K comparable] struct{ scheduler scheduler[K] }

// A scheduler decides at each gate which goroutine goes on.
type scheduler[K comparable] interface {
	sends(done <-chan struct{}, msg message[K])
	tries(message[K])
	receives()
	hears(channel, of any)
	selects(ctx context.Context, channel, of any)
	before(access string)
	starts(run func())
}

func (g gate[K]) sends(done <-chan struct{}, msg message[K]) {
	if g.scheduler != nil {
		g.scheduler.sends(done, msg)
	}
}

func (g gate[K]) tries(msg message[K]) {
	if g.scheduler != nil {
		g.scheduler.tries(msg)
	}
}

func (g gate[K]) receives() {
	if g.scheduler != nil {
		g.scheduler.receives()
	}
}

func (g gate[K]) hears(channel, of any) {
	if g.scheduler != nil {
		g.scheduler.hears(channel, of)
	}
}

func (g gate[K]) selects(ctx context.Context, channel, of any) {
	if g.scheduler != nil {
		g.scheduler.selects(ctx, channel, of)
	}
}

func (g gate[K]) before(access string) {
	if g.scheduler != nil {
		g.scheduler.before(access)
	}
}

// A requestPool keeps requests for their next use, where the scheduler says.
type requestPool struct {
	New  func() any
	take func(fresh func() any) any
	keep func(request any)
}

func (p *requestPool) Get() any {
	switch {
	case p.take != nil:
		return p.take(p.New)
	case p.New != nil:
		return p.New()
	}
	return nil
}

func (p *requestPool) Put(request any) {
	if p.keep != nil {
		p.keep(request)
	}
}

func (g gate[K]) starts(run func()) {
	if g.scheduler == nil {
		go run()
		return
	}
	g.scheduler.starts(run)
}
