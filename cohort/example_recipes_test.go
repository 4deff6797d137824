package cohort_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// What docs/RECIPES.md shows of several processes.

// lead calls fn while this process leads: while it holds the role. The context of fn ends when
// it leads no longer; then lead stands for the role again. It returns when fn steps down by
// returning, with fn's error, and when ctx ends.
func lead(ctx context.Context, locks *cohort.Manager, role string, fn func(ctx context.Context, token cohort.Token) error) error {
	for {
		lost := false
		err := locks.Do(ctx, role, func(ctx context.Context) error {
			err := fn(ctx, cohort.TokenFrom(ctx))
			lost = errors.Is(context.Cause(ctx), cohort.ErrLost)
			return err
		})
		if !lost {
			return err
		}
	}
}

// A ledger refuses a leader that has been succeeded, as what a lock protects must.
type ledger struct {
	mu      sync.Mutex
	seen    cohort.Token
	tokens  []cohort.Token
	entries []string
}

func (l *ledger) write(token cohort.Token, entry string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token.Compare(l.seen) < 0 {
		return errors.New("a later leader has written")
	}
	l.seen = token
	l.tokens = append(l.tokens, token)
	l.entries = append(l.entries, entry)
	return nil
}

// process starts a process that wants to lead.
func process(ctx context.Context, store *cohorttest.Store) (*cohort.Manager, *cohorttest.Engine) {
	engine := store.Engine()
	return cohort.Start(ctx, engine), engine
}

func TestLeaderThatLosesItsRoleIsSucceededAndStandsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		a, engineOfA := process(t.Context(), store)
		defer a.Close()
		b, _ := process(t.Context(), store)
		defer b.Close()

		var book ledger
		work := func(name string) func(context.Context, cohort.Token) error {
			return func(ctx context.Context, token cohort.Token) error {
				assert.NoError(t, book.write(token, name))
				<-ctx.Done() // one that has lost its role may still be here when the next begins
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var processes sync.WaitGroup
		processes.Go(func() { assert.ErrorIs(t, lead(ctx, a, "scheduler", work("a")), context.Canceled) })
		synctest.Wait()
		shortly, stepDown := context.WithTimeout(ctx, time.Hour)
		defer stepDown()
		processes.Go(func() { assert.ErrorIs(t, lead(shortly, b, "scheduler", work("b")), context.DeadlineExceeded) })
		synctest.Wait()
		assert.Equal(t, []string{"a"}, book.entries)

		engineOfA.Expire() // a is succeeded by b, and waits to lead again
		synctest.Wait()
		assert.Equal(t, []string{"a", "b"}, book.entries)
		require.Error(t, book.write(book.tokens[0], "late"), "from a, which was slow to notice")

		time.Sleep(time.Hour) // b steps down
		synctest.Wait()
		assert.Equal(t, []string{"a", "b", "a"}, book.entries)
		assert.Positive(t, book.tokens[1].Compare(book.tokens[0]))
		assert.Positive(t, book.tokens[2].Compare(book.tokens[1]))
		cancel()
		processes.Wait()
	})
}

func TestLeaderStepsDownByReturning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		a, _ := process(t.Context(), store)
		defer a.Close()
		b, _ := process(t.Context(), store)
		defer b.Close()
		done := errors.New("done")
		first := func(context.Context, cohort.Token) error { return done }
		require.Equal(t, done, lead(t.Context(), a, "scheduler", first))
		require.Equal(t, done, lead(t.Context(), b, "scheduler", first))
	})
}

// charge is code to be tested: it must not go on when the lock is lost.
func charge(ctx context.Context, locks *cohort.Manager, order string, pay func(ctx context.Context, token cohort.Token) error) error {
	err := locks.Do(ctx, "order/"+order, func(ctx context.Context) error {
		return pay(ctx, cohort.TokenFrom(ctx))
	})
	if err != nil {
		return fmt.Errorf("charge %s: %w", order, err)
	}
	return nil
}

// cohorttest is the test double of a lock service: here are another process, a service that refuses, and
// the loss of a session, in fake time and without a server.
func TestChargeWhenTheServiceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		engine := store.Engine()
		locks := cohort.Start(t.Context(), engine)
		defer locks.Close()
		other := cohort.Start(t.Context(), store.Engine()) // another process
		defer other.Close()
		paid := func(context.Context, cohort.Token) error { return nil }

		held, err := other.Acquire(t.Context(), "order/42")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, charge(ctx, locks, "42", paid), context.DeadlineExceeded)
		require.NoError(t, held.Release())

		refused := errors.New("no permission")
		engine.Script(cohorttest.Fault{Call: cohorttest.Acquire, Err: refused})
		require.ErrorIs(t, charge(t.Context(), locks, "42", paid), refused)

		require.ErrorIs(t, charge(t.Context(), locks, "42", func(ctx context.Context, _ cohort.Token) error {
			engine.Expire() // the lease runs out while the payment is made
			<-ctx.Done()
			return context.Cause(ctx)
		}), cohort.ErrLost)
		require.NoError(t, charge(t.Context(), locks, "42", paid))
	})
}

// An object store with conditional writes, such as S3's If-Match.
type bucket struct {
	etag  int
	token cohort.Token // kept with the object
	body  string
}

func (b *bucket) get() (token cohort.Token, etag int) { return b.token, b.etag }

func (b *bucket) put(ifMatch int, token cohort.Token, body string) error {
	if ifMatch != b.etag {
		return errors.New("412 Precondition Failed")
	}
	b.etag, b.token, b.body = b.etag+1, token, body
	return nil
}

var errSucceeded = errors.New("a later holder has written")

// putFenced writes an object unless a later holder of the lock has.
func putFenced(object *bucket, token cohort.Token, body string) error {
	seen, etag := object.get()
	if token.Compare(seen) < 0 {
		return errSucceeded
	}
	return object.put(etag, token, body) // refused when another write came between
}

func TestObjectIsFenced(t *testing.T) {
	var object bucket
	first, second := cohort.Token{Epoch: 7, Seq: 1}, cohort.Token{Epoch: 7, Seq: 2}
	require.NoError(t, putFenced(&object, first, "a"))
	require.NoError(t, putFenced(&object, first, "b"))
	require.NoError(t, putFenced(&object, second, "c"))
	require.ErrorIs(t, putFenced(&object, first, "late"), errSucceeded)
	_, etag := object.get()
	require.NoError(t, putFenced(&object, second, "d"))
	require.Error(t, object.put(etag, second, "read before d was written"))
	assert.Equal(t, "d", object.body)
}
