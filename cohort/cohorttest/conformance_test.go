package cohorttest_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var errRefused = errors.New("refused")

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
		Refuse: func(e cohort.Engine, call cohorttest.Call, forGood bool) error {
			if call == cohorttest.Wait {
				memory[e].Script(cohorttest.Fault{Call: call, Err: errRefused, Passes: true})
				memory[e].BreakWaits()
				return nil
			}
			memory[e].Script(cohorttest.Fault{Call: call, Err: errRefused, Passes: !forGood})
			return nil
		},
		Delete: func(key string) error {
			store.Delete(key)
			engines := slices.Collect(maps.Values(memory)) // the next check has others
			time.AfterFunc(20*time.Millisecond, func() {
				for _, e := range engines {
					e.Notice()
				}
			})
			return nil
		},
		Late: func(e cohort.Engine) error {
			memory[e].Script(cohorttest.Fault{Call: cohorttest.Acquire, Err: errRefused, Late: 30 * time.Millisecond})
			return nil
		},
		Pause:  func(e cohort.Engine) error { memory[e].Pause(); return nil },
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
	try     func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) // nil for as it is
}

func (e *spoiltEngine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	if e.try != nil {
		return e.try(e.Engine, ctx, key)
	}
	return e.Engine.TryAcquire(ctx, key)
}

func (e *spoiltEngine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(e.Engine, ctx, key)
}

type spoiltGrant struct {
	cohort.Grant
	epoch   func() uint64
	release func(context.Context) error
	lost    func() <-chan struct{}
	wanted  func(f func()) // nil for as it is
}

func (g spoiltGrant) OnWanted(f func()) {
	if g.wanted != nil {
		g.wanted(f)
		return
	}
	if r, ok := g.Grant.(cohort.Recaller); ok {
		r.OnWanted(f)
	}
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
		try     func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) // nil for as it is
	}{
		{"all epochs are one", "epochs: epoch 1 after epoch 1",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, epoch: func() uint64 { return 1 }}
			}), nil},
		{"a wait returns nothing", "exclusion: an Acquire of the held key returned",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(ctx, key)
				if errors.Is(err, cohort.ErrHeld) {
					return nil, nil
				}
				return g, err
			}, nil},
		{"an Acquire returns nothing", "grant: acquire \"grant/key\": neither a grant nor an error was returned",
			func(cohort.Engine, context.Context, string) (cohort.Grant, error) { return nil, nil }, nil},
		{"a try returns nothing", "refused in passing: neither a grant nor an error was returned",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(ctx, key)
			},
			func(cohort.Engine, context.Context, string) (cohort.Grant, error) { return nil, nil }},
		{"a loss is never reported", "revoked while held: Lost is still open",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, lost: func() <-chan struct{} { return never }}
			}), nil},
		{"a release depends on its context", "release without a context: acquire",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, release: func(ctx context.Context) error {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					return g.Release(ctx)
				}}
			}), nil},
		{"a lost lock is released as if nothing had been", "revoked unnoticed: Release of a lost lock returned <nil>",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, release: func(ctx context.Context) error { _ = g.Release(ctx); return nil }}
			}), nil},
		{"a cancelled wait goes on", "cancelled: Acquire goes on",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(context.WithoutCancel(ctx), key)
			}, nil},
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
			}, nil},
		{"every key is granted to all", "exclusion: an Acquire of the held key returned",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(ctx, key)
				if errors.Is(err, cohort.ErrHeld) {
					return spoiltGrant{
						epoch: func() uint64 { return 1 << 60 }, release: func(context.Context) error { return nil },
						lost: func() <-chan struct{} { return never },
					}, nil
				}
				return g, err
			}, nil},
		{"keys are mixed up", "independence: acquire",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(ctx, "the one and only")
			}, nil},
		{"a release that was refused is not repeated", "release refused: after a release that was refused once",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, release: func(context.Context) error { return errRefused }}
			}), nil},
		{"an error that passes ends a call", "refused in passing: acquire",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				before := e.(cohort.Reporter).Report().Retries
				g, err := e.Acquire(ctx, key)
				if err == nil && e.(cohort.Reporter).Report().Retries > before {
					return nil, errors.Join(errRefused, g.Release(ctx))
				}
				return g, err
			}, nil},
		{"a deleted key is not noticed", "deleted: Lost is still open",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, lost: func() <-chan struct{} { return never }}
			}), nil},
		{"a try after a refusal finds the key held", "refused for good: TryAcquire right after a refused",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				return e.Acquire(ctx, key)
			},
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(ctx, key)
				if err == nil && strings.HasPrefix(key, "refused for good") {
					return nil, errors.Join(cohort.ErrHeld, g.Release(ctx))
				}
				return g, err
			}},
		{"a deadline is left to a timer", "paused: Lost is open",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				lost := g.Lost()
				return spoiltGrant{Grant: g, lost: func() <-chan struct{} { return lost }}
			}), nil},
		{"that a key is wanted is never told", "wanted by a try: the holder does not learn",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, wanted: func(func()) {}}
			}), nil},
		{"a key counts as wanted from the start", "wanted by a waiter: a key counts as wanted again and again",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, wanted: func(f func()) { f() }}
			}), nil},
		{"who comes before the grant is forgotten", "wanted before the grant: the holder does not learn",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, wanted: func(f func()) {
					var registered atomic.Bool
					g.(cohort.Recaller).OnWanted(func() {
						if registered.Load() {
							f()
						}
					})
					registered.Store(true)
				}}
			}), nil},
		{"a loss does not count as wanted", "wanted when lost: the holder does not learn",
			grants(func(_ context.Context, g cohort.Grant) cohort.Grant {
				return spoiltGrant{Grant: g, wanted: func(f func()) {
					g.(cohort.Recaller).OnWanted(func() {
						go func() {
							select {
							case <-g.Lost():
							default:
								f()
							}
						}()
					})
				}}
			}), nil},
		{"that a kept key is wanted is not told", "kept: another process wants the kept key",
			func(e cohort.Engine, ctx context.Context, key string) (cohort.Grant, error) {
				g, err := e.Acquire(ctx, key)
				if err != nil || !strings.HasPrefix(key, "kept") {
					return g, err
				}
				return spoiltGrant{Grant: g, wanted: func(func()) {}}, nil
			}, nil},
	} {
		t.Run(broken.bug, func(t *testing.T) {
			t.Parallel()
			assertFound(t, broken.check, func(e cohort.Engine) cohort.Engine {
				return &spoiltEngine{e, broken.acquire, broken.try}
			})
		})
	}
}

// assertFound asserts that the checks find what spoil has done to each engine. What a check waits for may come late on a
// busy machine, and a bug that is seen only when it came first is missed then. So it tries again, at most ten times.
func assertFound(t *testing.T, check string, spoil func(cohort.Engine) cohort.Engine) {
	var err error
	for range 10 {
		store := cohorttest.NewStore()
		h := harness(store, spoil)
		h.Within = 600 * time.Millisecond
		err = cohorttest.Check(h)
		store.Close()
		if err != nil && strings.Contains(err.Error(), check) {
			return
		}
	}
	assert.ErrorContains(t, err, check, "after ten tries")
}

// asker is an engine in memory that is a cohort.Asker, and may break a promise of that.
type asker struct {
	cohort.Engine
	spoil func(ctx context.Context, try bool, reply func(cohort.Grant, error)) (context.Context, bool, func(cohort.Grant, error))
}

func (e *asker) Ask(ctx context.Context, key string, try bool, reply func(cohort.Grant, error)) {
	if strings.HasPrefix(key, "asked") {
		ctx, try, reply = e.spoil(ctx, try, reply)
	}
	acquire := e.Acquire
	if try {
		acquire = e.TryAcquire
	}
	go func() { reply(acquire(ctx, key)) }()
}

func TestChecksFindBrokenAskers(t *testing.T) {
	type reply = func(cohort.Grant, error)
	for _, broken := range []struct {
		bug   string
		check string // "" for none
		spoil func(ctx context.Context, try bool, tell reply) (context.Context, bool, reply)
	}{
		{"none", "",
			func(ctx context.Context, try bool, tell reply) (context.Context, bool, reply) { return ctx, try, tell }},
		{"a reply comes twice", "asked: it replied again",
			func(ctx context.Context, try bool, tell reply) (context.Context, bool, reply) {
				return ctx, try, func(g cohort.Grant, err error) {
					if err != nil {
						tell(g, err)
					}
					tell(g, err)
				}
			}},
		{"the grant is another", "asked: the grant is a cohorttest_test.spoiltGrant",
			func(ctx context.Context, try bool, tell reply) (context.Context, bool, reply) {
				return ctx, try, func(g cohort.Grant, err error) {
					if err == nil {
						g = spoiltGrant{Grant: g}
					}
					tell(g, err)
				}
			}},
		{"a try waits", "asked: Acquire goes on",
			func(ctx context.Context, _ bool, tell reply) (context.Context, bool, reply) { return ctx, false, tell }},
		{"a wait outlives its context", "asked: Acquire goes on",
			func(ctx context.Context, try bool, tell reply) (context.Context, bool, reply) {
				return context.WithoutCancel(ctx), try, tell
			}},
	} {
		t.Run(broken.bug, func(t *testing.T) {
			t.Parallel()
			spoil := func(e cohort.Engine) cohort.Engine { return &asker{e, broken.spoil} }
			if broken.check == "" {
				store := cohorttest.NewStore()
				defer store.Close()
				assert.NoError(t, cohorttest.Check(harness(store, spoil)))
				return
			}
			assertFound(t, broken.check, spoil)
		})
	}
}

// spoiltOperator breaks one promise of cohort.Operator.
type spoiltOperator struct {
	*cohorttest.Engine
	list   func(e *cohorttest.Engine, yield func(string, cohort.Contender) bool) error
	breaks func(e *cohorttest.Engine, key string, epoch uint64) (bool, error)
	try    func(e *cohorttest.Engine, key string) (cohort.Grant, error)
}

func (e spoiltOperator) List(ctx context.Context, yield func(string, cohort.Contender) bool) error {
	if e.list != nil {
		return e.list(e.Engine, yield)
	}
	return e.Engine.List(ctx, yield)
}

func (e spoiltOperator) Break(ctx context.Context, key string, epoch uint64) (bool, error) {
	if e.breaks != nil {
		return e.breaks(e.Engine, key, epoch)
	}
	return e.Engine.Break(ctx, key, epoch)
}

func (e spoiltOperator) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	if e.try != nil {
		return e.try(e.Engine, key)
	}
	return e.Engine.TryAcquire(ctx, key)
}

func TestChecksFindBrokenOperators(t *testing.T) {
	for _, broken := range []struct {
		bug      string
		check    string
		operator spoiltOperator
	}{
		{"a key is not listed", "shown: List has []",
			spoiltOperator{list: func(*cohorttest.Engine, func(string, cohort.Contender) bool) error { return nil }}},
		{"what was broken goes on", "broken: a waiter was not granted",
			spoiltOperator{breaks: func(e *cohorttest.Engine, key string, epoch uint64) (bool, error) {
				queue, err := e.Inspect(context.Background(), key)
				return err == nil && len(queue) > 0 && queue[0].Epoch == epoch, err
			}}},
		{"the epoch does not matter", "broken: Break with an epoch that no grant has returned",
			spoiltOperator{breaks: func(e *cohorttest.Engine, key string, _ uint64) (bool, error) {
				queue, err := e.Inspect(context.Background(), key)
				if err != nil || len(queue) == 0 {
					return false, err
				}
				return e.Break(context.Background(), key, queue[0].Epoch)
			}}},
		{"a failed try names another", "shown: the failed try says",
			spoiltOperator{try: func(e *cohorttest.Engine, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(context.Background(), key)
				if errors.Is(err, cohort.ErrHeld) {
					err = &cohort.HeldError{Key: key}
				}
				return g, err
			}}},
		{"a failed try does not know the process", "shown: the failed try says that",
			spoiltOperator{try: func(e *cohorttest.Engine, key string) (cohort.Grant, error) {
				g, err := e.TryAcquire(context.Background(), key)
				var held *cohort.HeldError
				if errors.As(err, &held) {
					held.Holder.Process = cohort.Process{}
				}
				return g, err
			}}},
	} {
		t.Run(broken.bug, func(t *testing.T) {
			t.Parallel()
			assertFound(t, broken.check, func(e cohort.Engine) cohort.Engine {
				spoilt := broken.operator
				spoilt.Engine = e.(*cohorttest.Engine)
				return &spoilt
			})
		})
	}
}

// A zero Store made its callers wait forever.
func TestStoreThatNewStoreDidNotMakePanicsWithASentence(t *testing.T) {
	const want = "cohorttest: a Store must be made by NewStore"
	assert.PanicsWithValue(t, want, func() { new(cohorttest.Store).Engine() })
	assert.PanicsWithValue(t, want, func() { new(cohorttest.Store).Len("key") })
	assert.PanicsWithValue(t, want, func() { new(cohorttest.Engine).Cut() })
}

func TestHarnessWithoutAnEngineIsReported(t *testing.T) {
	assert.ErrorContains(t, cohorttest.Check(cohorttest.Harness{}), "the Harness has no Engine")
}
