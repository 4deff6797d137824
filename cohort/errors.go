package cohort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

var (
	// ErrLost means that the engine's lock was lost while it was held. It is
	// the cause with which a Lock's Context is cancelled, and what Lock.Release
	// and Grant.Release then return.
	ErrLost = errors.New("cohort: lock lost")

	// ErrHeld means that Manager.TryAcquire or Engine.TryAcquire found the key held or waited for. Where it is known who
	// holds it, the error is a *HeldError.
	ErrHeld = errors.New("cohort: key held")

	// ErrClosed is returned by requests for locks to a Manager or an Engine that is
	// closed or shutting down, and by the questions and the WaitIdle of a Manager that has
	// ended. It is keylock.ErrClosed.
	ErrClosed = keylock.ErrClosed

	errNoReply = errors.New("cohort: the engine returned neither a grant nor an error")
)

// Process is how a process describes itself at an engine, for people who want to know who holds a key.
type Process struct {
	Label string // what the engine's WithLabel says; "" for none
	Host  string // "" where it is not known
	PID   int    // 0 where it is not known
}

// maxLabel is how many bytes a label may have: an engine keeps it with each session, or with each entry.
const maxLabel = 128

// ThisProcess returns the description of this process, with a label. It returns an error for a label that
// is longer than 128 bytes, is not UTF-8, or contains control characters.
func ThisProcess(label string) (Process, error) {
	switch {
	case len(label) > maxLabel:
		return Process{}, fmt.Errorf("a label of %d bytes: want at most %d", len(label), maxLabel)
	case !utf8.ValidString(label):
		return Process{}, errors.New("a label that is not UTF-8")
	case strings.ContainsFunc(label, unicode.IsControl):
		return Process{}, fmt.Errorf("the label %q has control characters", label)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return Process{Label: label, Host: host, PID: os.Getpid()}, nil
}

// String returns host:pid and the label, as far as they are known: "web-3:4242 checkout". That of the zero
// Process is "".
func (p Process) String() string {
	var words []string
	if p.Host != "" || p.PID != 0 {
		words = append(words, p.Host+":"+strconv.Itoa(p.PID))
	}
	if p.Label != "" {
		words = append(words, p.Label)
	}
	return strings.Join(words, " ")
}

// ParseProcess returns the Process whose String is text. A text that no engine wrote becomes the label.
func ParseProcess(text string) Process {
	first, label, _ := strings.Cut(text, " ")
	if colon := strings.LastIndexByte(first, ':'); colon > 0 {
		if pid, err := strconv.Atoi(first[colon+1:]); err == nil && pid > 0 {
			return Process{Label: label, Host: first[:colon], PID: pid}
		}
	}
	return Process{Label: text}
}

// HeldError is the error of a failed try where it is known who holds the key. It is [ErrHeld] to errors.Is:
//
//	var held *cohort.HeldError
//	if errors.As(err, &held) {
//		log.Printf("%s holds it since %v", held.Holder.Process, held.Holder.Since)
//	}
type HeldError struct {
	Key    string
	Holder Contender // at the moment when the engine refused
}

// Error says who holds the key, and since when.
func (e *HeldError) Error() string {
	text := ErrHeld.Error()
	if name := e.Holder.Process.String(); name != "" {
		text += " by " + show.Message(name)
	}
	if !e.Holder.Since.IsZero() {
		text += " since " + e.Holder.Since.Format("2006-01-02T15:04:05.000Z07:00")
	}
	return text
}

// Unwrap returns ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// endError is the error of a call whose context has ended, as keylock's is.
type endError struct {
	keys []string // that it was about
	ended.Reason
}

func endOf(ctx context.Context, keys ...string) error { return &endError{keys, ended.ReasonOf(ctx)} }

func (e *endError) Error() string {
	if len(e.keys) == 0 {
		return "cohort: " + e.Text()
	}
	return "cohort: " + show.First(&e.keys[0], len(e.keys)) + ": " + e.Text()
}
