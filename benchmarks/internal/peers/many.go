package peers

import "context"

// Many returns a client of l that locks many keys: in one step where the peer can, and
// one by one otherwise, which cannot deadlock because the keys are sorted.
func Many(l Locker) ManyClient {
	if l, ok := l.(ManyLocker); ok {
		return l.ManyClient()
	}
	return &oneByOne{locker: l}
}

type oneByOne struct {
	locker Locker
	spare  []Client // clients that were used and hold nothing
	held   []Client
}

func (c *oneByOne) LockAll(ctx context.Context, keys []string) error {
	for _, key := range keys {
		one := c.next()
		if err := one.Lock(ctx, key); err != nil {
			c.spare = append(c.spare, one)
			c.Unlock()
			return err
		}
		c.held = append(c.held, one)
	}
	return nil
}

func (c *oneByOne) Unlock() {
	for _, one := range c.held {
		one.Unlock()
	}
	c.spare = append(c.spare, c.held...)
	c.held = c.held[:0]
}

func (c *oneByOne) next() Client {
	n := len(c.spare)
	if n == 0 {
		return c.locker.Client()
	}
	one := c.spare[n-1]
	c.spare = c.spare[:n-1]
	return one
}
