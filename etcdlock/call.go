package etcdlock

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// call is an Acquire or a TryAcquire that is under way. It belongs to the goroutine that runs it.
type call struct {
	engine *Engine
	ctx    context.Context
	key    string
	try    bool
	reply  func(cohort.Grant, error) // is called once
	over   bool                      // reply was called, or is about to be
	err    error                     // what went wrong last
}

func (e *Engine) acquire(ctx context.Context, key string, try bool) (cohort.Grant, error) {
	type outcome struct {
		grant cohort.Grant
		err   error
	}
	replied := make(chan outcome, 1)
	e.Ask(ctx, key, try, func(g cohort.Grant, err error) { replied <- outcome{g, err} })
	o := <-replied
	return o.grant, o.err
}

// Ask implements cohort.Asker. The Grant is a *Grant.
func (e *Engine) Ask(ctx context.Context, key string, try bool, reply func(cohort.Grant, error)) {
	if err := e.tooLong(key); err != nil {
		reply(nil, err)
		return
	}
	c := &call{engine: e, ctx: ended.Sound(ctx), key: key, try: try, reply: reply}
	if !e.crew.Start(c.run) {
		c.fail(cohort.ErrClosed)
	}
}

// run contends for the key within this process, and then in etcd.
func (c *call) run() {
	t, err := c.engine.turns.take(c.ctx, c.key, c.try)
	if err != nil {
		c.fail(err)
		return
	}
	c.contend(t)
}

// contend enters the queue of the key until one attempt succeeds, or fails in a way
// that another attempt would not mend.
func (c *call) contend(t *turn) {
	for retry := (crew.Backoff{}); ; {
		s, err := c.engine.session(c.ctx)
		var p *entry // nil if there is nothing to clean up
		if err == nil {
			p = c.engine.newEntry(s, c.key)
			if err = c.enterQueue(p); err == nil {
				c.reply(newGrant(p, t), nil)
				return
			}
			if p.neverEntered() {
				p.forget()
				p = nil
			}
		}
		if !c.over && passes(err) && c.ctx.Err() == nil && c.engine.ctx.Err() == nil {
			c.err = err
			c.engine.note(err)
			if p != nil { // the next attempt has the same etcd key and must not meet what this one left
				c.outlast(p.cleanUp)
				p = nil
			}
			if !c.over && retry.Wait(c.ctx, c.ctx) == nil {
				continue
			}
		}
		if p != nil {
			c.fail(err)
			p.cleanUp()
		}
		t.end() // before the caller is told, who may try again at once
		c.fail(err)
		return
	}
}

// outlast runs f, which goes on when the context ends. The caller is told of that at once, and the call is over.
func (c *call) outlast(f func()) {
	stop := context.AfterFunc(c.ctx, func() { c.reply(nil, c.explain(c.err)) })
	f()
	c.over = !stop()
}

// fail replies with the error, unless the call is over.
func (c *call) fail(err error) {
	if !c.over {
		c.over = true
		c.reply(nil, c.explain(err))
	}
}

// explain says why the call failed: the caller's context comes before the engine's
// end, and that before what went wrong at etcd.
func (c *call) explain(err error) error {
	what := "acquire"
	if c.try {
		what = "try"
	}
	var held *cohort.HeldError
	if errors.As(err, &held) {
		held.Key = c.key
	}
	switch ctxErr := c.ctx.Err(); {
	case ctxErr != nil && (err == nil || errors.Is(err, ctxErr)):
		err = ctxErr
	case ctxErr != nil:
		err = fmt.Errorf("%w; before that: %w", ctxErr, err)
	case c.engine.ctx.Err() != nil:
		err = cohort.ErrClosed
	}
	return fmt.Errorf("etcdlock: %s %s: %w", what, keyText(c.key), err)
}
