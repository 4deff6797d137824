package lease

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Store is a server that keeps a FIFO queue of entries for every key. The entry
// at the head of a queue holds the key.
//
// Every call may be carried out although its caller got an error, may be carried
// out late, and is then repeated by the engine: it must be harmless to repeat.
// The calls come from several goroutines at once. An error that wraps
// [ErrSessionGone] or [cohort.ErrHeld] says what it says, an error made by
// [Refused] ends an Acquire, and every other error is taken to pass: the engine
// tries again. Calls return soon after their context ends; whether the request
// was carried out may then be unknown.
//
// # What a store decides alone
//
// All of this happens on the server, in one step per call and by the server's clock:
//
//   - A session lives until TTL after its last Begin or Renew. An entry of a
//     session that has ended counts as gone: it is removed by the next call that
//     meets it at the head of its queue, which then grants the key to the next living entry.
//   - An epoch is greater than every earlier epoch of the same key, also after
//     the server has lost its newest data. max(last+1, the clock in µs) is.
//   - A call that makes another entry the head grants the key to it, and
//     sends a notice to that entry's process alone.
type Store interface {
	// Begin starts the session s. Repeating it prolongs the session.
	Begin(ctx context.Context, s Session) error

	// Renew makes the session s last for its TTL from now. It must not start a
	// session, nor revive one that has ended: it returns ErrSessionGone then. It also
	// returns those of the held entries that do not hold their keys any more
	// with the epoch that they were granted, because an operator removed them. A
	// store may leave that to a later Renew.
	Renew(ctx context.Context, s Session, held []Held) (missing []Held, err error)

	// Enter puts the entry e at the end of the queue of its key, if it is not in the
	// queue yet, and returns where it stands. When another entry is in the queue and
	// try is true it returns cohort.ErrHeld or a *cohort.HeldError instead, and leaves nothing behind.
	// When e holds the key already, it returns the same epoch again. It
	// returns ErrSessionGone when e's session has ended or never began.
	//
	// When e has to wait, or is refused because of try, and the head of the queue holds the key, the holder's process is
	// sent a Wanted notice, see also Warner.
	Enter(ctx context.Context, e Entry, try bool) (Standing, error)

	// Leave removes the entry e from its queue, and grants the key to the next living
	// entry if e was the head. It returns whether e was there. When late is true, an Enter of e
	// may still be on its way to the server: it must then do nothing when it arrives,
	// as long as the session lives. Leave returns ErrSessionGone when the session has ended.
	Leave(ctx context.Context, e Entry, late bool) (found bool, err error)

	// End ends the session s and removes its entries, granting keys to the next
	// living entries. When there is no such session it returns nil.
	End(ctx context.Context, s Session) error

	// Listen calls notify with each notice for the session s until ctx ends or it
	// can no longer hear them, and returns why. A notice may be lost while nothing
	// listens, so Listen passes a Look at every start and whenever it has
	// subscribed again: every waiting entry then asks, and every key that is held counts as wanted. A store
	// without a way to be told returns nil only when ctx ends, and passes a Look whenever the engine shall
	// ask again. Notify does not block, and may be called from several goroutines at once.
	Listen(ctx context.Context, s Session, notify func(Notice)) error
}

// Warner is a Store that sends Wanted notices for an entry only when the engine asks for them. It is optional: any other
// sends them for each holder. Few holders need them, and each costs the server and two processes.
type Warner interface {
	// Warn has the store send Wanted notices for the entry e, which holds its key, from now on. It returns whether
	// another entry waits already, or e does not hold its key any more. A try may be refused without a notice before Warn.
	Warn(ctx context.Context, e Entry) (wanted bool, err error)
}

// Session stands for a process at the store.
type Session struct {
	ID      string         // unique: 26 letters and digits, chosen by the engine
	TTL     time.Duration  // how long it lives without a renewal
	Process cohort.Process // whose it is, for people
}

// Entry is one attempt to get a key. It is in the key's queue at most once.
type Entry struct {
	Session Session
	Key     string
	Attempt uint64 // unique among the entries of the session; from 1

	// Warn has a Warner send Wanted notices from the grant on, without a Warn. It is set when the engine expects
	// to need them.
	Warn bool
}

// ID returns the entry's name, unique among all entries: the session's ID, a
// colon and the attempt.
func (e Entry) ID() string {
	return e.Session.ID + ":" + strconv.FormatUint(e.Attempt, 10)
}

// Held is an entry that holds its key.
type Held struct {
	Key     string
	Attempt uint64
	Epoch   uint64
}

// Standing is where an entry stands in its queue.
type Standing struct {
	Epoch  uint64 // of its grant; 0 while it waits
	Wanted bool   // with a grant: other entries wait behind it

	// Again is how long a waiting entry waits before it asks again, because
	// nothing will be sent to it: such as until the session of the head can have
	// ended. 0 means that a quarter of the TTL will do.
	Again time.Duration
}

// Notice is what a store sends to a process.
type Notice struct {
	Kind    NoticeKind
	Attempt uint64 // of the entry concerned
	Epoch   uint64 // with Granted: that of the grant. 0 means that the entry shall ask with Enter.
}

// NoticeKind says what a Notice is about.
type NoticeKind int

const (
	Look    NoticeKind = iota // notices may have been lost: every waiting entry asks again, and every key counts as wanted
	Granted                   // the entry has become the head of its queue and holds the key
	Wanted                    // the entry holds the key, and another waits behind it or was refused
)

// ErrSessionGone means that the store does not know the session, or that its
// TTL has passed. Every entry of the session is gone with it.
var ErrSessionGone = errors.New("lease: session gone")

// Refused marks err as one that waiting does not mend, such as a refused
// permission. It ends an Acquire. A release goes on all the same, until the session ends. Refused of nil is nil.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return refusedError{err}
}

type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// IsRefused reports whether err was made by [Refused], or wraps such an error.
func IsRefused(err error) bool {
	var refused refusedError
	return errors.As(err, &refused)
}

// passes reports whether what went wrong may go well another time. It is the
// only place that decides so.
func passes(err error) bool {
	return !IsRefused(err) && !errors.Is(err, cohort.ErrHeld)
}
