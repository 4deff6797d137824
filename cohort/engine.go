package cohort

import (
	"context"
	"time"
)

// Engine is where processes meet: a lock service that grants a key to one
// contender among all processes, numbers its grants, and reports when it can no
// longer vouch for one. The package cohorttest holds the checks that every
// engine must pass.
//
// A Manager has at most one contender per key at its engine at any time. An
// engine's methods may be called from several goroutines at once.
type Engine interface {
	// Acquire waits in the engine's queue until key is granted to this process.
	// It returns as soon as ctx ends, with an error that wraps ctx.Err(), also
	// while the engine is unreachable; what the attempt left at the engine is
	// then cleaned up in the background, within a bound. A wait outlives the
	// loss of the session it began in: Acquire enters the queue anew. After Close, and
	// when Close ends it, it returns ErrClosed; an error that waiting cannot
	// mend, such as a refused permission, comes back as the engine gave it.
	Acquire(ctx context.Context, key string) (Grant, error)

	// TryAcquire is Acquire without the wait in the queue: it returns ErrHeld when
	// the key is held or waited for, or better a *HeldError, if it costs no other request.
	TryAcquire(ctx context.Context, key string) (Grant, error)

	// Close gives up every key that is still held, closes its Lost, ends
	// every wait and cleans up what it can until ctx ends. It returns nil
	// when nothing is left at the engine, and may be called again.
	Close(ctx context.Context) error
}

// Asker is an Engine that needs no goroutine of its caller's to wait. It is optional: for each request to another
// engine the Manager starts one, which has to be scheduled in every lock that comes from the engine.
type Asker interface {
	// Ask is Acquire, or TryAcquire if try is true, but returns at once. The engine calls reply once, with what
	// the other would return and as soon as it would return. Reply does not block, and may be called from any goroutine,
	// also before Ask returns.
	Ask(ctx context.Context, key string, try bool, reply func(Grant, error))
}

// Grant is the engine's lock on one key, held by one process.
type Grant interface {
	// Epoch numbers the grant: of two grants of one key, to whichever
	// processes, the later has the greater Epoch. It is never 0.
	Epoch() uint64

	// Lost returns a channel that is closed when the engine can no longer promise that
	// the key is ours: before the lease could have run out elsewhere, however late the
	// engine's replies were, or when it learns that the lock is gone. An engine
	// that goes by a deadline compares it with the clock in each call of Lost: a process
	// that was paused calls Lost before any timer of its own has run.
	Lost() <-chan struct{}

	// Release gives the key back: this grant of it and no later one, so that a
	// late or repeated call harms no other holder. It returns nil when the engine has
	// confirmed it, and ErrLost when the lock had been lost before. When ctx
	// ends first it returns an error that wraps ctx.Err(). With any other error too
	// the key is given back in the background, within a bound; a ctx that has already
	// ended therefore still releases. Calling it again waits for, and
	// returns, the same outcome.
	Release(ctx context.Context) error
}

// Recaller is a Grant whose engine can tell when another process wants the key. It is optional: the grant of an
// engine without it is handed off by count and by time from the start.
type Recaller interface {
	// OnWanted has the engine call f as soon as it learns that another process waits for the key, or was
	// refused it by a TryAcquire; and also when the engine can no longer tell, for instance because
	// its watch is broken, or when the grant is lost. If one of these has happened already since the
	// grant, or before it, f is called at once, possibly before OnWanted returns. The engine may call f
	// without a reason, but calls it at most once. f does not block, and may be called from any goroutine,
	// also after Release. The Manager calls OnWanted at most once for a grant, when it has been handed off for the first
	// time, before it is kept, or when its holder asks: an engine need not have others tell it of grants before that.
	OnWanted(f func())
}

// Inspector is an Engine that can tell who holds a key and who waits for it, in all processes.
type Inspector interface {
	// Inspect returns the contenders for key in the order of the queue, as of one moment: the first
	// holds it, or waits as the others do where its Epoch is 0, because nothing is granted yet. There can
	// be a bound on how many. It returns none for a key that is free, and an error that wraps ctx.Err()
	// when ctx ends first.
	Inspect(ctx context.Context, key string) ([]Contender, error)
}

// Contender is a process that holds a key at the engine or waits for it there.
type Contender struct {
	Process Process   // the zero Process where it says nothing
	Since   time.Time // when it was granted the key or, where the engine does not know that, entered the queue; zero where neither is known
	Epoch   uint64    // of its grant, also of the one that it waits for, where that is known by then; else 0
	Own     bool      // it is this process
}

// Reporter is an Engine that can tell how it gets on. Report does not wait.
type Reporter interface {
	Report() EngineReport
}

// EngineReport is how an engine gets on with its service.
type EngineReport struct {
	Process      Process   // what this process calls itself there
	Session      string    // what the session is called there, such as the ID of a lease; "" when there is none
	SessionBegan time.Time // zero when there is no session, or nothing of the kind
	SessionEnds  time.Time // unless it is renewed before

	Sessions    uint64 // that have begun
	Lost        uint64 // those that ended before the engine was closed
	Retries     uint64 // requests that failed and were, or will be, repeated
	Orphans     uint64 // left behind at the service by requests that were carried out too late, and removed
	LastError   error  // of the last request that failed; nil for none
	LastErrorAt time.Time
}

// Operator is an Engine whose locks a person can list, and take away from a process that hangs. All
// engines of this project are. Its calls need no session: they work while other processes hold everything.
type Operator interface {
	Inspector

	// List calls yield for each key that is held or waited for, in all processes, with the contender
	// that is first in its queue, in no particular order, until yield returns false. Its Epoch is 0 if the key
	// is not granted to it yet. What changes meanwhile may be listed as it was or as it is, or not at all. List
	// returns an error that wraps ctx.Err() when ctx ends first.
	List(ctx context.Context, yield func(key string, first Contender) bool) error

	// Break takes key away from the holder whose grant has the epoch, as Inspect or List has shown
	// it, and grants the key to the next in the queue, with a greater epoch. It reports whether that
	// grant was still there: a later one is left alone, also one of the same process. The process
	// that held the key learns that it is lost as of any loss that it has no part in, at its
	// next renewal; until then only its smaller token keeps it out. After an error it is not known whether
	// the key was taken away; Break may be repeated.
	Break(ctx context.Context, key string, epoch uint64) (bool, error)
}
