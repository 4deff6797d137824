package lease

import "sync/atomic"

// crew counts the engine's goroutines, so that Close can wait for them. Unlike with a
// WaitGroup, a goroutine may be started while another waits: it is refused then.
type crew struct {
	state atomic.Int64  // how many there are, plus dismissed
	gone  chan struct{} // closed when it is dismissed and there are none
}

const dismissed = 1 << 62

// start runs f in a goroutine, and reports false after dismiss.
func (c *crew) start(f func()) bool {
	for {
		n := c.state.Load()
		if n >= dismissed {
			return false
		}
		if c.state.CompareAndSwap(n, n+1) {
			break
		}
	}
	go func() {
		defer func() {
			if c.state.Add(-1) == dismissed {
				close(c.gone)
			}
		}()
		f()
	}()
	return true
}

// dismiss lets no goroutine start any more. It is called once.
func (c *crew) dismiss() {
	if c.state.Add(dismissed) == dismissed {
		close(c.gone)
	}
}
