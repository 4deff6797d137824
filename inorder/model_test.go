package inorder_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// A model is the dullest thing that knows what may run: a list of works for each key.
type model struct {
	t       testing.TB
	limit   int
	byKey   bool // failures stop a key
	mu      sync.Mutex
	queues  map[string][]*work
	busy    map[string]string // what runs, by key; of an outsider too
	running int
	parts   []*part
}

// A part is a group, as the model sees it.
type part struct {
	g      group
	ctx    context.Context
	cancel context.CancelCauseFunc
	fate   fate
	failed map[string]int // works that failed, by key
}

type fate int

const (
	lives fate = iota
	ends       // its works may begin or be dropped
	ended      // none may begin
)

type work struct {
	name    string
	key     string
	of      *part
	takes   time.Duration
	retries int
	pause   time.Duration
	fails   bool
	goexit  bool
	done    bool
}

// add notes that the work is about to be submitted.
func (m *model) add(w *work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues[w.key] = append(m.queues[w.key], w)
}

func (m *model) remove(w *work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.take(w)
}

func (m *model) take(w *work) {
	m.queues[w.key] = slices.DeleteFunc(m.queues[w.key], func(o *work) bool { return o == w })
}

// run is what the group calls: it sees whether the model allows that.
func (m *model) run(ctx context.Context, w *work) error {
	m.enter(w)
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
	}
	return m.leave(ctx, w)
}

func (m *model) enter(w *work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	assert.Empty(m.t, m.busy[w.key], "%s beside it", w.name)
	for _, o := range m.queues[w.key] {
		if o == w {
			break
		}
		assert.NotEqual(m.t, lives, o.of.fateOf(m, w.key), "%s passes %s", w.name, o.name)
	}
	assert.NotEqual(m.t, ended, w.of.fateOf(m, w.key), "%s begins", w.name)
	assert.Contains(m.t, m.queues[w.key], w)
	m.busy[w.key] = w.name
	m.running++
	assert.LessOrEqual(m.t, m.running, m.limit)
}

// fateOf returns what may become of the works of a key.
func (p *part) fateOf(m *model, key string) fate {
	if p.failed[key] > 0 {
		return ended
	}
	return p.fate
}

func (m *model) leave(ctx context.Context, w *work) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, w.key)
	m.running--
	switch {
	case w.retries > 0:
		w.retries--
		return inorder.Again(w.pause, errBad)
	case w.fails, w.goexit:
		w.of.failed[w.key]++
		if !m.byKey {
			for _, p := range m.under(w.of) {
				p.fate = max(p.fate, ends)
			}
		}
		m.take(w)
		if w.goexit {
			exit()
		}
		return errBad
	}
	w.done = true
	m.take(w)
	return nil
}

// end runs what ends parts, first the given one.
func (m *model) end(do func(), parts ...*part) {
	set := func(f fate) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range parts {
			p.fate = max(p.fate, f)
		}
	}
	set(ends)
	do()
	synctest.Wait() // a function whose turn had come may not have been called yet
	set(ended)
}

// runProgram makes a program of the bytes and runs it on a group, in fake time.
func runProgram(t *testing.T, program []byte) {
	next := func() int {
		if len(program) == 0 {
			return 0
		}
		b := program[0]
		program = program[1:]
		return int(b)
	}
	synctest.Test(t, func(t *testing.T) {
		flags := next()
		m := &model{t: t, limit: 1 + next()%4, queues: make(map[string][]*work), busy: make(map[string]string)}
		options := []inorder.Option{inorder.WithQueue(1 + next()%20)}
		if flags&1 != 0 {
			m.byKey = true
			options = append(options, inorder.WithKeyFailures())
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		root := &part{ctx: ctx, cancel: cancel, failed: make(map[string]int)}
		var locks *keylock.Manager[string]
		if flags&2 != 0 {
			locks = keylock.Start[string](context.Background())
			defer locks.Close()
			root.g = inorder.Over(ctx, locks, m.limit, options...)
		} else {
			root.g = inorder.New[string](ctx, m.limit, options...)
		}
		m.parts = append(m.parts, root)
		var outsiders sync.WaitGroup
		for n := 0; len(program) > 0 && n < 200; n++ {
			p := m.parts[next()%len(m.parts)]
			key := keyName(next() % 4)
			switch op := next() % 32; op {
			case 0: // a new part
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if flags&4 != 0 && p != root { // it ends together with that one
					ctx, cancel = p.ctx, p.cancel
				}
				m.mu.Lock()
				sub := &part{g: root.g.Sub(ctx), ctx: ctx, cancel: cancel, fate: root.fate, failed: make(map[string]int)}
				if ctx.Err() != nil {
					sub.fate = ended
				}
				m.parts = append(m.parts, sub)
				m.mu.Unlock()
			case 1:
				if p != root || next()%8 == 0 {
					m.end(func() { p.g.Stop(errBad) }, m.under(p)...)
				}
			case 2:
				if p != root || next()%8 == 0 {
					m.end(func() { p.cancel(errBad) }, m.with(p)...)
				}
			case 3:
				idle, cancel := context.WithTimeout(t.Context(), time.Duration(next())*time.Millisecond)
				p.g.WaitIdle(idle)
				cancel()
			case 4, 5:
				time.Sleep(time.Duration(next()) * time.Millisecond)
			case 6, 7, 8:
				if locks == nil {
					break
				}
				reservation := locks.Reserve(key)
				takes := time.Duration(next()) * time.Millisecond
				outsiders.Go(func() {
					lock, err := reservation.Wait(t.Context())
					assert.NoError(t, err)
					m.mu.Lock()
					assert.Empty(t, m.busy[key], "an outsider beside it")
					m.busy[key] = "an outsider"
					m.mu.Unlock()
					time.Sleep(takes)
					m.mu.Lock()
					delete(m.busy, key)
					m.mu.Unlock()
					lock.Release()
				})
			default:
				kind := next()
				w := &work{name: fmt.Sprint(n), key: key, of: p, takes: time.Duration(next()%8) * time.Millisecond}
				switch kind % 16 {
				case 0:
					w.fails = true
				case 1:
					w.goexit = true
				case 2, 3, 4:
					w.retries, w.pause = 1+next()%3, time.Duration(next()%64)*time.Millisecond
				}
				m.add(w)
				fn := func(ctx context.Context) error { return m.run(ctx, w) }
				if op%2 == 0 {
					if !p.g.TryGo(key, fn) {
						m.remove(w)
					}
				} else if err := p.g.Go(t.Context(), key, fn); err != nil {
					m.mu.Lock()
					assert.NotEqual(t, lives, p.fate, "%v", err)
					m.mu.Unlock()
					m.remove(w)
				}
			}
		}
		for _, p := range m.parts[1:] {
			m.waited(p)
		}
		m.waited(root)
		outsiders.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		assert.Zero(t, m.running)
		for key, queue := range m.queues {
			for _, w := range queue {
				assert.NotEqual(t, lives, w.of.fateOf(m, key), "%s is lost", w.name)
			}
		}
		if locks != nil {
			assert.NoError(t, locks.WaitIdle(t.Context()))
		}
	})
}

// under returns the part and those of which it is the group.
func (m *model) under(p *part) []*part {
	if p == m.parts[0] {
		return m.parts
	}
	return []*part{p}
}

// with returns the parts that end with the context of the part.
func (m *model) with(p *part) []*part {
	if p == m.parts[0] {
		return m.parts
	}
	return slices.DeleteFunc(slices.Clone(m.parts), func(o *part) bool { return o.ctx != p.ctx })
}

// waited waits for the part and sees that it tells of failures, and of nothing else.
func (m *model) waited(p *part) {
	err := p.g.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(p.failed) > 0 || p.fate == ended:
		require.Error(m.t, err)
	case p.fate == lives:
		require.NoError(m.t, err)
	} // else its group failed at the same moment
}

func TestGroupIsLikeItsModel(t *testing.T) {
	programs := 3000
	if testing.Short() || locktest.RaceEnabled {
		programs = 300
	}
	for seed := range programs {
		random := rand.New(rand.NewPCG(uint64(seed), 2))
		program := make([]byte, 100+random.IntN(900))
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		program[0] = byte(seed)
		runProgram(t, program)
		if t.Failed() {
			t.Fatalf("program of seed %d", seed)
		}
	}
}

func FuzzGroup(f *testing.F) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 3))
		program := make([]byte, 300)
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		program[0] = byte(seed)
		f.Add(program)
	}
	f.Add([]byte("01700000700000C000007\x140\xb2 08")) // failed once
	f.Fuzz(runProgram)
}
