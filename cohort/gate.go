//go:build !explore

package cohort

// A gate stands before each access to what the keeper and the callers of a Manager use at the same
// time. It does nothing and compiles to nothing, except with the build tag explore: then the
// explorer decides there which goroutine goes on. See verify/README.md.
type gate struct{}

// before stands before an access.
func (gate) before(access string, c *claim) {}

// starts starts a goroutine.
func (gate) starts(run func()) { go run() }
