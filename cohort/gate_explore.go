//go:build explore

package cohort

// A gate asks the scheduler, where there is one, to go on.
type gate struct{ scheduler scheduler }

// A scheduler decides at each gate which goroutine goes on.
type scheduler interface {
	before(access string, c *claim)
	starts(run func())
}

func (g gate) before(access string, c *claim) {
	if g.scheduler != nil {
		g.scheduler.before(access, c)
	}
}

func (g gate) starts(run func()) {
	if g.scheduler == nil {
		go run()
		return
	}
	g.scheduler.starts(run)
}
