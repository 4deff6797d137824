package cohorttest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// harness checks engines in memory, each wrapped by spoil.
func harness(store *cohorttest.Store, spoil func(cohort.Engine) cohort.Engine) cohorttest.Harness {
	memory := make(map[cohort.Engine]*cohorttest.Engine)
	h := cohorttest.Harness{
		Engine: func() (cohort.Engine, error) {
			e := store.Engine()
			spoilt := spoil(e)
			memory[spoilt] = e
			return spoilt, nil
		},
		Revoke: func(e cohort.Engine) error { memory[e].Revoke(); return nil },
		Cut:    func(e cohort.Engine) error { memory[e].Cut(); return nil },
		Heal:   func(e cohort.Engine) error { memory[e].Heal(); return nil },
		Within: 2 * time.Second,
		Quiet:  5 * time.Millisecond,
	}
	revoke := h.Revoke
	h.Revoke = func(e cohort.Engine) error {
		defer time.AfterFunc(20*time.Millisecond, memory[e].Notice)
		return revoke(e)
	}
	return h
}

func TestEngineInMemoryConforms(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	cohorttest.Run(t, harness(store, func(e cohort.Engine) cohort.Engine { return e }))
}

// spoiltEngine breaks one promise of the engine it wraps.
type spoiltEngine struct {
	cohort.Engine
	acquire func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error)
}

func (e *spoiltEngine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(e.Engine, ctx, key)
}

type spoiltGrant struct {
	cohort.Grant
	epoch   func() uint64
	release func(context.Context) error
	lost    func() <-chan struct{}
}

func (g spoiltGrant) Epoch() uint64 {
	if g.epoch != nil {
		return g.epoch()
	}
	return g.Grant.Epoch()
}

func (g spoiltGrant) Release(ctx context.Context) error {
	if g.release != nil {
		return g.release(ctx)
	}
	return g.Grant.Release(ctx)
}

func (g spoiltGrant) Lost() <-chan struct{} {
	if g.lost != nil {
		return g.lost()
	}
	return g.Grant.Lost()
}

// Each of these engines breaks one promise, and the check of that promise says so.
func TestChecksFindBrokenEngines(t *testing.T) {
	never := make(chan struct{})
	grants := func(change func(ctx context.Context, g cohort.Grant) cohort.Grant) func(cohort.Engine, context.Context, string) (cohort.Grant, error) {
		return func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
			g, err := e.Acquire(ctx, key)
			if err != nil {
				return nil, err
			}
			return change(ctx, g), nil
		}
	}
	for _, broken := range []struct {
		bug     string
		check   string
		acquire func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error)
	}{
		{"all epochs are one", "epochs: epoch 1 after epoch 1",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, epoch: func() uint64 { return 1 }}
			})},
		{"a loss is never told", "revoked while held: Lost is still open",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, lost: func() <-chan struct{} { return never }}
			})},
		{"a release depends on its context", "release without a context: acquire",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, release: func(ctx context.Context) error {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					return g.Release(ctx)
				}}
			})},
		{"a lost lock is released as if nothing had been", "revoked unnoticed: Release of a lost lock returned <nil>",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, release: func(ctx context.Context) error { _ = g.Release(ctx); return nil }}
			})},
		{"a cancelled wait goes on", "cancelled: Acquire goes on",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(context.WithoutCancel(ctx), key)
			}},
		{"a cancelled wait leaves its entry behind", "cancelled: a waiter was not granted",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				got := make(chan struct{})
				var g cohort.Grant
				var err error
				go func() {
					defer close(got)
					g, err = e.Acquire(context.WithoutCancel(ctx), key)
				}()
				select {
				case <-got:
					return g, err
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}},
		{"everybody gets everything", "exclusion: an Acquire of the held key returned",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(ctx, key)
				if errors.Is(err, cohort.ErrHeld) {
					return spoiltGrant{epoch: func() uint64 { return 1 << 60 }, release: func(context.Context) error { return nil }}, nil
				}
				return g, err
			}},
		{"keys are mixed up", "independence: acquire",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(ctx, "the one and only")
			}},
	} {
		t.Run(broken.bug, func(t *testing.T) {
			t.Parallel()
			store := cohorttest.NewStore()
			defer store.Close()
			h := harness(store, func(e cohort.Engine) cohort.Engine { return &spoiltEngine{e, broken.acquire} })
			h.Within = 300 * time.Millisecond
			assert.ErrorContains(t, cohorttest.Check(h), broken.check)
		})
	}
}
