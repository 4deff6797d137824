// Package parked keeps a few goroutines that have run a task for the next one: a new goroutine has to
// grow its stack first, for what a client of a server puts there, which is a measurable part of
// a lock that no other process wants.
package parked

import "sync/atomic"

// most is how many goroutines wait for a task.
const most = 8

// Goroutines run tasks, one after another.
type Goroutines struct {
	tasks   chan func()
	over    <-chan struct{}
	waiting atomic.Int64
}

// New returns goroutines of which none waits any more when over is closed.
func New(over <-chan struct{}) *Goroutines {
	return &Goroutines{tasks: make(chan func()), over: over}
}

// Take has a goroutine that waits run f, and reports false when there is none.
func (g *Goroutines) Take(f func()) bool {
	select {
	case g.tasks <- f:
		return true
	default:
		return false
	}
}

// Work runs f, and then the tasks that others give to Take. It returns when enough goroutines wait.
func (g *Goroutines) Work(f func()) {
	for f != nil {
		f()
		f = g.next()
	}
}

// next waits for a task; it returns nil if the goroutine shall end.
func (g *Goroutines) next() (f func()) {
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > most {
		return nil
	}
	select {
	case f = <-g.tasks:
	case <-g.over:
	}
	return f
}
