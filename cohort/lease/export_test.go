package lease

// Overdue makes the engine's session look as it does to a process that was paused for longer
// than it can be trusted: its deadline has passed, and the timer has not fired yet.
func (e *Engine) Overdue() { e.current.Load().until.Store(-1) }

// Known returns how many attempts the session keeps in mind at most. It must not run beside other calls.
func (e *Engine) Known() int {
	s, n := e.current.Load(), 0
	for a := s.joined.Load(); a != nil; a = a.next {
		n++
	}
	return n + 2*s.live + 64
}
