//go:build explore

package keylock

import "context"

// A gate asks the scheduler, where there is one, to go on.
type gate[M any] struct{ scheduler scheduler[M] }

// A scheduler decides at each gate which goroutine goes on.
type scheduler[M any] interface {
	sends(done <-chan struct{}, msg M)
	tries(M)
	receives()
	hears(channel, of any)
	selects(ctx context.Context, channel, of any)
	before(access string)
	starts(run func())
}

func (g gate[M]) sends(done <-chan struct{}, msg M) {
	if g.scheduler != nil {
		g.scheduler.sends(done, msg)
	}
}

func (g gate[M]) tries(msg M) {
	if g.scheduler != nil {
		g.scheduler.tries(msg)
	}
}

func (g gate[M]) receives() {
	if g.scheduler != nil {
		g.scheduler.receives()
	}
}

func (g gate[M]) hears(channel, of any) {
	if g.scheduler != nil {
		g.scheduler.hears(channel, of)
	}
}

func (g gate[M]) selects(ctx context.Context, channel, of any) {
	if g.scheduler != nil {
		g.scheduler.selects(ctx, channel, of)
	}
}

func (g gate[M]) before(access string) {
	if g.scheduler != nil {
		g.scheduler.before(access)
	}
}

// A cellGate asks the scheduler, where there is one, to go on.
type cellGate struct {
	scheduler interface {
		before(access string)
		cell(access string, word, number uint64)
	}
}

func (g cellGate) before(access string) {
	if g.scheduler != nil {
		g.scheduler.before(access)
	}
}

func (g cellGate) cell(access string, word, number uint64) {
	if g.scheduler != nil {
		g.scheduler.cell(access, word, number)
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

func (g gate[M]) starts(run func()) {
	if g.scheduler == nil {
		go run()
		return
	}
	g.scheduler.starts(run)
}
