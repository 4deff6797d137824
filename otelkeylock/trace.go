package otelkeylock

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// An Option changes how waits are traced; pass it to [Trace] or [TraceCohort].
type Option func(*tracing)

// WithName sets the attribute keylock.manager.name of the spans.
func WithName(name string) Option {
	return func(t *tracing) { t.attributes = append(t.attributes, nameOf(name)) }
}

// WithKeys adds the key as the attribute keylock.key, as errors and the slow log show it: on one
// line, of at most 256 bytes, and a pointer as an address. A request for many keys has the attribute keylock.keys
// instead, a slice of the first 16.
func WithKeys() Option {
	return func(t *tracing) { t.keys = true }
}

// WithTracerProvider sets the provider of the spans. Without it they come from the global one.
func WithTracerProvider(provider trace.TracerProvider) Option {
	if provider == nil {
		panic("otelkeylock: WithTracerProvider(nil)")
	}
	return func(t *tracing) { t.tracer = provider.Tracer(ScopeName) }
}

// A Manager is a [keylock.Manager] whose Acquire, AcquireShared, AcquireAll, AcquireSet and Do are
// traced. Its other calls are those of the manager that it wraps, also a session's and a reservation's.
type Manager[K comparable] struct {
	*keylock.Manager[K]
	tracing tracing
}

// Trace wraps a manager so that a request which waits for a lock is a span, named "keylock
// wait", from the call until the lock is granted or the wait has ended in another way. It is a child of the
// span of the caller's context.
//
// A request has a span when it found its key taken, waited for a millisecond or longer, or
// failed. It has none when the span of its context is not recorded: such a request costs what it
// costs without tracing. For one that is recorded the manager is first asked about the key, which
// costs the owner a look at its queue, at most 1,000 holders and waiters.
//
// The attributes are:
//
//	keylock.manager.name  see WithName
//	keylock.mode          exclusive or shared
//	keylock.outcome       granted, cancelled, rejected or failed
//	keylock.queue.length  how many requests waited when this one came; of many keys, the most of any of the first 16
//	keylock.grant         the number of the grant, as in keylock.Lock.Seq
//	keylock.set.size      how many keys the request names, if it is one for many
//	keylock.key           see WithKeys; keylock.keys if the request is one for many
//	error.type            why there is no lock: canceled, deadline_exceeded, queue_full, closed, invalid_key, or _OTHER
func Trace[K comparable](manager *keylock.Manager[K], opts ...Option) *Manager[K] {
	if manager == nil {
		panic("otelkeylock: Trace with a nil manager")
	}
	mustBeStarted(manager)
	return &Manager[K]{Manager: manager, tracing: newTracing(opts)}
}

// Acquire is [keylock.Manager.Acquire], traced.
func (m *Manager[K]) Acquire(ctx context.Context, key K) (keylock.Lock[K], error) {
	w := m.begin(ctx, key, keylock.Exclusive)
	lock, err := m.Manager.Acquire(ctx, key)
	w.end(err, lock.Seq())
	return lock, err
}

// AcquireShared is [keylock.Manager.AcquireShared], traced.
func (m *Manager[K]) AcquireShared(ctx context.Context, key K) (keylock.Lock[K], error) {
	w := m.begin(ctx, key, keylock.Shared)
	lock, err := m.Manager.AcquireShared(ctx, key)
	w.end(err, lock.Seq())
	return lock, err
}

// AcquireAll is [keylock.Manager.AcquireAll], traced.
func (m *Manager[K]) AcquireAll(ctx context.Context, keys ...K) (keylock.Lock[K], error) {
	w := m.tracing.begin(ctx, keylock.Exclusive)
	if w != nil {
		set := make([]keylock.Want[K], len(keys))
		for i, key := range keys {
			set[i].Key = key
		}
		addKeys(w, keys)
		m.look(w, set...)
	}
	lock, err := m.Manager.AcquireAll(ctx, keys...)
	w.end(err, lock.Seq())
	return lock, err
}

// AcquireSet is [keylock.Manager.AcquireSet], traced. Its mode is shared when that of all keys is.
func (m *Manager[K]) AcquireSet(ctx context.Context, set ...keylock.Want[K]) (keylock.Lock[K], error) {
	w := m.tracing.begin(ctx, modeOfAll(set))
	if w != nil {
		keys := make([]K, len(set))
		for i, want := range set {
			keys[i] = want.Key
		}
		addKeys(w, keys)
		m.look(w, set...)
	}
	lock, err := m.Manager.AcquireSet(ctx, set...)
	w.end(err, lock.Seq())
	return lock, err
}

func modeOfAll[K comparable](set []keylock.Want[K]) keylock.Mode {
	for _, want := range set {
		if want.Mode != keylock.Shared {
			return keylock.Exclusive
		}
	}
	return keylock.Shared
}

// Do is [keylock.Manager.Do], traced: the span ends when fn begins.
func (m *Manager[K]) Do(ctx context.Context, key K, fn func(context.Context) error) error {
	w := m.begin(ctx, key, keylock.Exclusive)
	return w.do(fn, func(fn func(context.Context) error) error { return m.Manager.Do(ctx, key, fn) })
}

// begin begins the wait of a request for one key. It returns nil when the request is not traced.
func (m *Manager[K]) begin(ctx context.Context, key K, mode keylock.Mode) *wait {
	w := m.tracing.begin(ctx, mode)
	if w != nil {
		addKey(w, key)
		m.look(w, keylock.Want[K]{Key: key, Mode: mode})
	}
	return w
}

// looked bounds for how many keys of a request the manager is asked.
const looked = 16

// look looks whether keys are free, and how many requests wait for them.
func (m *Manager[K]) look(w *wait, set ...keylock.Want[K]) {
	length := 0
	for _, want := range set[:min(len(set), looked)] {
		info, err := m.Inspect(w.ctx, want.Key)
		if err != nil {
			return // the request fails likewise, and says why
		}
		length = max(length, info.Waiting)
		switch {
		case info.Waiting > 0:
			w.taken = true
		case info.Held > 0:
			alone := want.Mode == keylock.Exclusive || info.Holders[0].Mode == keylock.Exclusive
			w.taken = w.taken || alone || want.Limit > 0 && info.Held >= want.Limit
		}
	}
	w.add(attribute.Int("keylock.queue.length", length))
}

// A Cohort is a [cohort.Manager] whose Acquire, AcquireAll and Do are traced. Its other calls are
// those of the manager that it wraps.
type Cohort struct {
	*cohort.Manager
	tracing tracing
}

// TraceCohort is [Trace] for a cohort: a wait is one in the queue of the process and at the engine. Its span
// has no keylock.queue.length, because to know it the engine would have to be asked.
func TraceCohort(manager *cohort.Manager, opts ...Option) *Cohort {
	if manager == nil {
		panic("otelkeylock: TraceCohort with a nil manager")
	}
	mustBeStarted(manager)
	return &Cohort{Manager: manager, tracing: newTracing(opts)}
}

// Acquire is [cohort.Manager.Acquire], traced.
func (m *Cohort) Acquire(ctx context.Context, key string) (cohort.Lock, error) {
	w := m.begin(ctx, key)
	lock, err := m.Manager.Acquire(ctx, key)
	w.end(err, 0)
	return lock, err
}

// AcquireAll is [cohort.Manager.AcquireAll], traced: one span for all its waits.
func (m *Cohort) AcquireAll(ctx context.Context, keys ...string) (cohort.Locks, error) {
	w := m.tracing.begin(ctx, keylock.Exclusive)
	addKeys(w, keys)
	locks, err := m.Manager.AcquireAll(ctx, keys...)
	w.end(err, 0)
	return locks, err
}

// Do is [cohort.Manager.Do], traced: the span ends when fn begins.
func (m *Cohort) Do(ctx context.Context, key string, fn func(context.Context) error) error {
	return m.begin(ctx, key).do(fn, func(fn func(context.Context) error) error { return m.Manager.Do(ctx, key, fn) })
}

func (m *Cohort) begin(ctx context.Context, key string) *wait {
	w := m.tracing.begin(ctx, keylock.Exclusive)
	addKey(w, key)
	return w
}

type tracing struct {
	tracer     trace.Tracer
	attributes []attribute.KeyValue
	keys       bool
}

func newTracing(opts []Option) tracing {
	var t tracing
	for _, opt := range opts {
		if opt == nil {
			panic("otelkeylock: nil Option")
		}
		opt(&t)
	}
	if t.tracer == nil {
		t.tracer = otel.Tracer(ScopeName)
	}
	return t
}

// A wait is a request that is traced. Its span is made when it has ended, because only then
// is it known whether it waited. The methods of nil, a request that is not traced, do nothing.
type wait struct {
	tracing    *tracing
	ctx        context.Context
	began      time.Time
	taken      bool // it found its key taken
	attributes []attribute.KeyValue
}

func (t *tracing) begin(ctx context.Context, mode keylock.Mode) *wait {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	w := &wait{tracing: t, ctx: ctx, began: time.Now()}
	w.add(t.attributes...)
	w.add(modeOf(mode))
	return w
}

func (w *wait) add(attributes ...attribute.KeyValue) {
	if w != nil {
		w.attributes = append(w.attributes, attributes...)
	}
}

func addKey[K comparable](w *wait, key K) {
	if w != nil && w.tracing.keys {
		w.add(attribute.String("keylock.key", show.Bare(&key)))
	}
}

func addKeys[K comparable](w *wait, keys []K) {
	if w == nil {
		return
	}
	w.add(attribute.Int("keylock.set.size", len(keys)))
	if w.tracing.keys {
		var texts []string
		for _, key := range keys[:min(len(keys), looked)] {
			texts = append(texts, show.Bare(&key))
		}
		w.add(attribute.StringSlice("keylock.keys", texts))
	}
}

// noticeable is what a request that found its key free must last to have waited: another one
// came first, or too many requests shared the owner.
const noticeable = time.Millisecond

func (w *wait) end(err error, grant uint64) {
	if w == nil {
		return
	}
	ended := time.Now()
	if err == nil && !w.taken && ended.Sub(w.began) < noticeable {
		return
	}
	outcome, kind, text := describe(err)
	w.add(attribute.String("keylock.outcome", outcome))
	if grant > 0 {
		w.add(attribute.Int64("keylock.grant", int64(grant)))
	}
	if err != nil {
		w.add(attribute.String("error.type", kind))
	}
	_, span := w.tracing.tracer.Start(w.ctx, "keylock wait", trace.WithTimestamp(w.began), trace.WithAttributes(w.attributes...))
	if err != nil {
		span.SetStatus(codes.Error, text)
	}
	span.End(trace.WithTimestamp(ended))
}

// do runs a Do whose wait this is.
func (w *wait) do(fn func(context.Context) error, run func(func(context.Context) error) error) error {
	if w == nil || fn == nil { // the manager panics for nil, before it acquires anything
		return run(fn)
	}
	granted := false
	err := run(func(ctx context.Context) error {
		granted = true
		w.end(nil, 0)
		return fn(ctx)
	})
	if !granted {
		w.end(err, 0)
	}
	return err
}

// describe says how a wait ended. The text of the error itself has the key in it.
func describe(err error) (outcome, kind, text string) {
	switch {
	case err == nil:
		return "granted", "", ""
	case errors.Is(err, context.DeadlineExceeded):
		return "cancelled", "deadline_exceeded", context.DeadlineExceeded.Error()
	case errors.Is(err, context.Canceled):
		return "cancelled", "canceled", context.Canceled.Error()
	case errors.Is(err, keylock.ErrQueueFull):
		return "rejected", "queue_full", keylock.ErrQueueFull.Error()
	case errors.Is(err, keylock.ErrClosed):
		return "failed", "closed", keylock.ErrClosed.Error()
	case errors.Is(err, keylock.ErrInvalidKey):
		return "failed", "invalid_key", keylock.ErrInvalidKey.Error()
	default:
		return "failed", "_OTHER", "no lock"
	}
}
