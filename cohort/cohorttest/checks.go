package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// checks are the promises of cohort.Engine, in the order in which a new engine will want to pass them.
var checks = []check{
	{
		name: "grant", engines: 1,
		promise: "a free key is granted, vouched for, given back, and can be had again",
		do: func(b *bench) error {
			for range 3 {
				g, err := b.acquire(b.engines[0], b.key)
				if err != nil {
					return err
				}
				select {
				case <-g.Lost():
					return errors.New("a new grant is lost")
				default:
				}
				if err := b.release(g); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "exclusion", engines: 2,
		promise: "a key that one process holds is granted to another only after its release",
		do: func(b *bench) error {
			ours, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			theirs := b.wait(b.engines[1], b.key)
			if err := errors.Join(b.waits(theirs), b.holds(b.engines[1], b.key), b.release(ours)); err != nil {
				return err
			}
			g, err := b.granted(theirs)
			if err != nil {
				return err
			}
			return errors.Join(b.holds(b.engines[0], b.key), b.release(g))
		},
	},
	{
		name: "try", engines: 2,
		promise: "TryAcquire gets a free key, does not wait for a held one, and leaves no trace",
		do: func(b *bench) error {
			g, err := b.engines[0].TryAcquire(b.ctx, b.key)
			if err != nil {
				return fmt.Errorf("TryAcquire of a free key: %w", err)
			}
			if err := errors.Join(b.holds(b.engines[1], b.key), b.release(g)); err != nil {
				return err
			}
			if g, err = b.engines[1].TryAcquire(b.ctx, b.key); err != nil {
				return fmt.Errorf("TryAcquire of a key that is free again: %w", err)
			}
			return b.release(g)
		},
	},
	{
		name: "epochs", engines: 2,
		promise: "of two grants of a key the later has the greater epoch, in whichever process",
		do: func(b *bench) error {
			var last uint64
			for i := range 10 {
				g, err := b.acquire(b.engines[i%2], b.key)
				if err != nil {
					return err
				}
				if g.Epoch() <= last {
					return fmt.Errorf("epoch %d after epoch %d", g.Epoch(), last)
				}
				last = g.Epoch()
				if err := b.release(g); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "independence", engines: 2,
		promise: "a key never waits for another key's holder, however alike the two are spelled",
		do: func(b *bench) error {
			var held []cohort.Grant
			keys := []string{"", "/", "a", "a/", "a/b", "a/b/c", "a%2Fb", "A", "a b", "ä", "a\x00b", "\xff"}
			for i, key := range keys {
				g, err := b.acquire(b.engines[i%2], b.key+key)
				if err != nil {
					return err
				}
				held = append(held, g)
			}
			for i, g := range held {
				if err := errors.Join(b.holds(b.engines[(i+1)%2], b.key+keys[i]), b.release(g)); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "cancelled", engines: 3,
		promise: "a wait ends with its context's error, and what it leaves behind stops no other process",
		do: func(b *bench) error {
			holder, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			leaver := b.wait(b.engines[1], b.key)
			if err := b.waits(leaver); err != nil {
				return err
			}
			stayer := b.wait(b.engines[2], b.key)
			if err := b.waits(stayer); err != nil {
				return err
			}
			leaver.cancel()
			if err := errors.Join(b.fails(leaver, context.Canceled), b.waits(stayer), b.release(holder)); err != nil {
				return err
			}
			g, err := b.granted(stayer)
			if err != nil {
				return err
			}
			if err := b.release(g); err != nil {
				return err
			}
			again, err := b.acquire(b.engines[1], b.key)
			if err != nil {
				return fmt.Errorf("after a cancelled wait: %w", err)
			}
			return b.release(again)
		},
	},
	{
		name: "cancelled at any moment", engines: 2,
		promise: "an Acquire whose context ends at whatever moment of it leaves no grant without an owner",
		do: func(b *bench) error {
			for patience := 10 * time.Microsecond; patience < 20*time.Millisecond; patience = patience * 3 / 2 {
				ctx, cancel := context.WithTimeout(b.ctx, patience)
				g, err := b.engines[0].Acquire(ctx, b.key)
				cancel()
				if err == nil {
					err = b.release(g)
				} else if errors.Is(err, context.DeadlineExceeded) {
					err = nil
				}
				if err != nil {
					return err
				}
				other, err := b.acquire(b.engines[1], b.key)
				if err != nil {
					return fmt.Errorf("after an Acquire that had %v: %w", patience, err)
				}
				if err := b.release(other); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "done context", engines: 1,
		promise: "a context that is done never acquires, not even a free key",
		do: func(b *bench) error {
			ctx, cancel := context.WithCancel(b.ctx)
			cancel()
			if g, err := b.engines[0].Acquire(ctx, b.key); g != nil || !errors.Is(err, context.Canceled) {
				return fmt.Errorf("Acquire returned (%v, %v)", g, err)
			}
			if g, err := b.engines[0].TryAcquire(ctx, b.key); g != nil || !errors.Is(err, context.Canceled) {
				return fmt.Errorf("TryAcquire returned (%v, %v)", g, err)
			}
			return nil
		},
	},
	{
		name: "release again", engines: 2,
		promise: "a release ends its own grant: again and late it changes nothing and says the same",
		do: func(b *bench) error {
			old, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := errors.Join(b.release(old), b.release(old)); err != nil {
				return err
			}
			next, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := errors.Join(b.release(old), b.holds(b.engines[1], b.key)); err != nil {
				return fmt.Errorf("an old release took away a new grant of the same process: %w", err)
			}
			return b.release(next)
		},
	},
	{
		name: "release without a context", engines: 2,
		promise: "a release whose context has ended still gives the key back",
		do: func(b *bench) error {
			g, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(b.ctx)
			cancel()
			if err := g.Release(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("Release with a done context: %w", err)
			}
			other, err := b.acquire(b.engines[1], b.key)
			if err != nil {
				return err
			}
			return b.release(other)
		},
	},
	{
		name: "hammer", engines: 4,
		promise: "one process at a time, with ever greater epochs, also when all are in a hurry",
		do:      hammer,
	},
	{
		name: "close", engines: 2,
		promise: "Close reaches holders, ends waits, frees every key and may be called again",
		do: func(b *bench) error {
			held, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			theirs, err := b.acquire(b.engines[1], b.key+"2")
			if err != nil {
				return err
			}
			waiting := b.wait(b.engines[0], b.key+"2")
			if err := b.waits(waiting); err != nil {
				return err
			}
			if err := b.close(b.engines[0]); err != nil {
				return fmt.Errorf("Close: %w", err)
			}
			if err := errors.Join(b.lost(held), b.fails(waiting, cohort.ErrClosed)); err != nil {
				return err
			}
			if err := held.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release after Close returned %v, not ErrLost", err)
			}
			if g, err := b.engines[0].Acquire(b.ctx, b.key); g != nil || !errors.Is(err, cohort.ErrClosed) {
				return fmt.Errorf("Acquire after Close returned (%v, %v)", g, err)
			}
			if g, err := b.engines[0].TryAcquire(b.ctx, b.key); g != nil || !errors.Is(err, cohort.ErrClosed) {
				return fmt.Errorf("TryAcquire after Close returned (%v, %v)", g, err)
			}
			freed, err := b.acquire(b.engines[1], b.key)
			if err != nil {
				return fmt.Errorf("a key that Close should have freed: %w", err)
			}
			return errors.Join(b.release(freed), b.release(theirs), b.close(b.engines[0]))
		},
	},
	{
		name: "revoked while held", engines: 2,
		needs:   func(h Harness) bool { return h.Revoke != nil },
		promise: "a holder learns that its lock is gone, and its engine can acquire anew",
		do: func(b *bench) error {
			gone, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := b.Revoke(b.engines[0]); err != nil {
				return err
			}
			other, err := b.acquire(b.engines[1], b.key)
			if err != nil {
				return err
			}
			if other.Epoch() <= gone.Epoch() {
				return fmt.Errorf("epoch %d after the lost epoch %d", other.Epoch(), gone.Epoch())
			}
			if err := b.lost(gone); err != nil {
				return err
			}
			if err := gone.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release of a lost lock returned %v, not ErrLost", err)
			}
			if err := errors.Join(b.holds(b.engines[0], b.key), b.release(other)); err != nil {
				return err
			}
			again, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			return b.release(again)
		},
	},
	{
		name: "revoked unnoticed", engines: 2,
		needs:   func(h Harness) bool { return h.Revoke != nil },
		promise: "a release that finds the lock gone says ErrLost, also when it had not been noticed",
		do: func(b *bench) error {
			gone, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := b.Revoke(b.engines[0]); err != nil {
				return err
			}
			if err := gone.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release of a lost lock returned %v, not ErrLost", err)
			}
			return nil
		},
	},
	{
		name: "revoked while waiting", engines: 2,
		needs:   func(h Harness) bool { return h.Revoke != nil },
		promise: "a wait outlives the loss of its session",
		do: func(b *bench) error {
			holder, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			waiting := b.wait(b.engines[1], b.key)
			if err := b.waits(waiting); err != nil {
				return err
			}
			if err := b.Revoke(b.engines[1]); err != nil {
				return err
			}
			if err := errors.Join(b.waits(waiting), b.release(holder)); err != nil {
				return err
			}
			g, err := b.granted(waiting)
			if err != nil {
				return err
			}
			return errors.Join(b.holds(b.engines[0], b.key), b.release(g))
		},
	},
	{
		name: "refused in passing", engines: 2,
		needs:   func(h Harness) bool { return h.Refuse != nil },
		promise: "an error that passes ends no call",
		do: func(b *bench) error {
			if err := b.Refuse(b.engines[0], Acquire, false); err != nil {
				return err
			}
			g, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := errors.Join(b.Refuse(b.engines[0], Release, false), b.release(g), b.Refuse(b.engines[0], Acquire, false)); err != nil {
				return err
			}
			if g, err = b.engines[0].TryAcquire(b.ctx, b.key); err != nil {
				return fmt.Errorf("TryAcquire: %w", err)
			}
			return b.release(g)
		},
	},
	{
		name: "refused for good", engines: 2,
		needs:   func(h Harness) bool { return h.Refuse != nil },
		promise: "an error that waiting does not mend comes back at once, is no ErrHeld, and leaves nothing behind",
		do: func(b *bench) error {
			for call, f := range map[string]func(context.Context, string) (cohort.Grant, error){
				"Acquire": b.engines[0].Acquire, "TryAcquire": b.engines[0].TryAcquire,
			} {
				if err := b.Refuse(b.engines[0], Acquire, true); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(b.ctx, b.Within)
				g, err := f(ctx, b.key)
				cancel()
				if g != nil || err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cohort.ErrHeld) || errors.Is(err, cohort.ErrClosed) {
					return fmt.Errorf("%s that the store refused returned (%v, %v)", call, g, err)
				}
				if g, err = b.engines[0].TryAcquire(b.ctx, b.key); err != nil {
					return fmt.Errorf("TryAcquire right after a refused %s: %w", call, err)
				}
				if err := b.release(g); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "release refused", engines: 2,
		needs:   func(h Harness) bool { return h.Refuse != nil },
		promise: "a release that the store refuses once, in whichever way, is repeated until the key is free",
		do: func(b *bench) error {
			for _, forGood := range []bool{false, true} {
				g, err := b.acquire(b.engines[0], b.key)
				if err != nil {
					return err
				}
				if err := b.Refuse(b.engines[0], Release, forGood); err != nil {
					return err
				}
				first := g.Release(b.ctx)
				other, err := b.acquire(b.engines[1], b.key)
				if err != nil {
					return fmt.Errorf("after a release that was refused once and returned %v: %w", first, err)
				}
				if err := errors.Join(b.release(g), b.release(other)); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "abandoned while refused", engines: 3,
		needs:   func(h Harness) bool { return h.Refuse != nil },
		promise: "a wait that was abandoned while the store refused leaves no entry in the queue",
		do: func(b *bench) error {
			for _, forGood := range []bool{false, true} {
				holder, err := b.acquire(b.engines[0], b.key)
				if err != nil {
					return err
				}
				leaver := b.wait(b.engines[1], b.key)
				if err := b.waits(leaver); err != nil {
					return err
				}
				if err := b.Refuse(b.engines[1], Release, forGood); err != nil {
					return err
				}
				leaver.cancel()
				if err := errors.Join(b.fails(leaver, context.Canceled), b.release(holder)); err != nil {
					return err
				}
				g, err := b.acquire(b.engines[2], b.key)
				if err != nil {
					return fmt.Errorf("behind a wait that was abandoned: %w", err)
				}
				if err := b.release(g); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "wait broken", engines: 2,
		needs:   func(h Harness) bool { return h.Refuse != nil },
		promise: "a wait goes on over a connection that breaks, also when the store has forgotten what happened meanwhile",
		do: func(b *bench) error {
			holder, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			waiting := b.wait(b.engines[1], b.key)
			for range 3 {
				if err := errors.Join(b.waits(waiting), b.Refuse(b.engines[1], Wait, false), b.waits(waiting)); err != nil {
					return err
				}
			}
			if err := b.release(holder); err != nil {
				return err
			}
			g, err := b.granted(waiting)
			if err != nil {
				return err
			}
			return b.release(g)
		},
	},
	{
		name: "deleted", engines: 3,
		needs:   func(h Harness) bool { return h.Delete != nil },
		promise: "when a person deletes a key from the store its holder learns of it, its waiters enter the queue anew, and no other key is touched",
		do: func(b *bench) error {
			gone, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			other, err := b.acquire(b.engines[0], b.key+"2")
			if err != nil {
				return err
			}
			waiting := b.wait(b.engines[1], b.key)
			if err := errors.Join(b.waits(waiting), b.Delete(b.key)); err != nil {
				return err
			}
			if err := b.lost(gone); err != nil {
				return err
			}
			if err := gone.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release of a deleted lock returned %v, not ErrLost", err)
			}
			g, err := b.granted(waiting)
			if err != nil {
				return err
			}
			if g.Epoch() <= gone.Epoch() {
				return fmt.Errorf("epoch %d after the lost epoch %d", g.Epoch(), gone.Epoch())
			}
			if err := errors.Join(b.holds(b.engines[2], b.key), b.holds(b.engines[2], b.key+"2"), b.release(g), b.release(other)); err != nil {
				return err
			}
			again, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			return b.release(again)
		},
	},
	{
		name: "carried out late", engines: 2,
		needs:   func(h Harness) bool { return h.Late != nil },
		promise: "a request that the store carries out long after its sender has given it up stops others for no longer than Within",
		do: func(b *bench) error {
			if err := b.Late(b.engines[0]); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(b.ctx, b.Quiet)
			defer cancel()
			if g, err := b.engines[0].Acquire(ctx, b.key); err == nil {
				if err := b.release(g); err != nil {
					return err
				}
			}
			for range 5 {
				time.Sleep(b.Quiet)
				g, err := b.acquire(b.engines[1], b.key)
				if err != nil {
					return err
				}
				if err := b.release(g); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "paused", engines: 2,
		needs:   func(h Harness) bool { return h.Pause != nil },
		promise: "after a pause of the process, the first call of Lost notices that the deadline has passed, before any timer does",
		do: func(b *bench) error {
			gone, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := b.Pause(b.engines[0]); err != nil {
				return err
			}
			select {
			case <-gone.Lost():
			default:
				return errors.New("Lost is open right after the pause")
			}
			if err := gone.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release after the pause returned %v, not ErrLost", err)
			}
			g, err := b.acquire(b.engines[1], b.key)
			if err != nil {
				return err
			}
			return b.release(g)
		},
	},
	{
		name: "unreachable", engines: 2,
		needs:   func(h Harness) bool { return h.Cut != nil && h.Heal != nil },
		promise: "while the store is unreachable every call returns with its context; when it is back, nothing is in the way",
		do:      unreachable,
	},
}

// hammer has every engine take the key as fast as it can, and looks for overlap
// with a variable that nothing else protects.
func hammer(b *bench) error {
	const rounds = 15
	inside := make(chan struct{}, 1)
	epochs := make(chan uint64, rounds*len(b.engines))
	failed := make(chan error, len(b.engines))
	for _, e := range b.engines {
		go func() {
			for range rounds {
				g, err := b.acquire(e, b.key)
				if err != nil {
					failed <- err
					return
				}
				select {
				case inside <- struct{}{}:
				default:
					failed <- errors.New("two processes hold the key at once")
					return
				}
				epochs <- g.Epoch()
				<-inside
				if err := b.release(g); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	var err error
	for range b.engines {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return err
	}
	close(epochs)
	var last uint64
	for epoch := range epochs {
		if epoch <= last {
			return fmt.Errorf("epoch %d after epoch %d", epoch, last)
		}
		last = epoch
	}
	return nil
}

func unreachable(b *bench) error {
	const patience = 300 * time.Millisecond
	cut, other := b.engines[0], b.engines[1]
	held, err := b.acquire(cut, b.key)
	if err != nil {
		return err
	}
	if err := b.Cut(cut); err != nil {
		return err
	}
	inTime := func(call string, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		returned := make(chan error, 1)
		go func() { returned <- f(ctx) }()
		select {
		case err := <-returned:
			if err == nil {
				return fmt.Errorf("%s succeeded without its store", call)
			}
			return nil
		case <-time.After(patience + time.Second + b.Within): // a busy machine may be late
			return fmt.Errorf("%s goes on after its context", call)
		}
	}
	err = errors.Join(
		inTime("Acquire", func(ctx context.Context) error { _, err := cut.Acquire(ctx, b.key+"2"); return err }),
		inTime("TryAcquire", func(ctx context.Context) error { _, err := cut.TryAcquire(ctx, b.key+"3"); return err }),
		inTime("Release", held.Release),
		b.Heal(cut),
	)
	if err != nil {
		return err
	}
	for _, key := range []string{b.key, b.key + "2", b.key + "3"} {
		for _, e := range []cohort.Engine{other, cut} {
			g, err := b.acquire(e, key)
			if err != nil {
				return fmt.Errorf("after the store came back: %w", err)
			}
			if err := b.release(g); err != nil {
				return err
			}
		}
	}
	if err := b.Cut(cut); err != nil {
		return err
	}
	return errors.Join(inTime("Close", cut.Close), b.Heal(cut))
}
