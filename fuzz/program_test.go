package fuzz

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A program is made of bytes: the first is the configuration, and each three after
// that are a step. Every byte string is a program, so the fuzzer wastes nothing.
type program struct {
	maxWaiters, sharedLimit int
	watched                 int  // which options only watch: 1 the callers, 2 the times, 4 the slow log
	parts                   bool // the table lets in one of those that it could let in together, and the others later
	steps                   []step
}

// maxProgram caps the length. Short programs find what there is to be found, and keep
// the executions per second high.
const maxProgram = 64

// keys is how many keys there are: few, so that requests meet.
const keys = 4

// owners is how many there are, one of which is no session.
const owners = 5

// A step names one operation and the things that it is about, as far as it is about them.
type step struct {
	verb   byte
	shared bool
	many   bool // for the keys below, not for the first of them alone
	try    bool
	race   bool          // the next step comes at the same time
	owner  int           // 0 is none, the others are sessions
	keys   []int         // up to three, with duplicates and in any order
	each   []table.Terms // of many keys; nil when all are exclusive
	limit  int32         // of one that is shared
	arg    byte          // picks one of those that are there
}

func parse(bytes []byte) program {
	if len(bytes) == 0 {
		return program{}
	}
	p := program{
		maxWaiters:  []int{0, table.NoWaiters, 1, 3}[bytes[0]&3],
		sharedLimit: []int{0, 0, 1, 2}[bytes[0]>>2&3],
		watched:     int(bytes[0] >> 4 & 7),
		parts:       bytes[0]>>7 == 1,
	}
	for bytes = bytes[1:]; len(bytes) >= 3; bytes = bytes[3:] {
		verb, flags, arg := bytes[0], bytes[1], bytes[2]
		s := step{
			verb:   verb & 15,
			try:    verb>>4&3 == 3,
			race:   verb>>6&1 == 1,
			shared: flags&1 == 1,
			owner:  int(flags>>1&7) % owners,
			many:   flags>>4&3 == 3,
			keys:   []int{int(arg) % keys, int(arg) / keys % keys, int(arg) / keys / keys % keys},
			arg:    arg,
		}
		if s.many {
			s.keys = s.keys[:flags>>6]
			if s.shared {
				s.each = termsOf(s.keys, arg)
			}
			s.shared = false // it is said for each of them
		} else {
			s.keys = s.keys[:1]
			if s.shared && flags>>4&3 == 2 {
				s.limit = int32(1 + flags>>6%3)
			}
		}
		p.steps = append(p.steps, s)
	}
	return p
}

// termsOf makes terms for keys out of a byte: one key is exclusive, and the others are shared,
// perhaps with a limit.
func termsOf(keys []int, arg byte) (each []table.Terms) {
	for _, key := range keys {
		is := table.Terms{Mode: table.Shared}
		switch n := int(arg)/7 + key; {
		case n%3 == 0:
			is.Mode = table.Exclusive
		case n%4 == 1:
			is.Limit = int32(1 + n%2)
		}
		each = append(each, is)
	}
	return each
}

// error is what went wrong at the last of so many steps.
func (p program) error(last int, err error, verb func(step) string) error {
	text := fmt.Sprintf("max waiters %d, shared limit %d, watched %d, parts %t", p.maxWaiters, p.sharedLimit, p.watched, p.parts)
	for i, s := range p.steps[:last+1] {
		text += fmt.Sprintf("\n%d %s: %s", i, verb(s), s)
	}
	return fmt.Errorf("%s\n%w", text, err)
}

// String shows a step, without its verb.
func (s step) String() string {
	text := fmt.Sprintf("owner %d, keys %v, arg %d", s.owner, s.keys, s.arg)
	if s.each != nil || s.limit > 0 {
		text += fmt.Sprintf(", each %v, limit %d", s.each, s.limit)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"shared", s.shared}, {"many", s.many}, {"try", s.try}, {"race", s.race}} {
		if flag.set {
			text += ", " + flag.name
		}
	}
	return text
}

// The verbs of programs. Those of the table come first; the manager has more.
const (
	join = iota
	cancel
	release
	releaseAny // whose grant may have ended long ago
	handoff
	closeSession
	other
	acquire
	try
	reserve
	wait
	cancelReservation
	waitIdle
	shutdown
	closeManager
	endContext
	downgrade
)

var verbNames = [...]string{
	"join", "cancel", "release", "release any", "hand off", "close session", "other", "acquire", "try", "reserve", "wait",
	"cancel reservation", "wait idle", "shutdown", "close", "end context", "downgrade",
}

// pick returns one of those that are there; false when there is none.
func pick[E any](from []E, arg byte) (E, bool) {
	if len(from) == 0 {
		var none E
		return none, false
	}
	return from[int(arg)%len(from)], true
}

//go:embed testdata/seeds.txt
var seeds string

// addSeeds adds the programs of testdata/seeds.txt that are for this target.
func addSeeds(f *testing.F) {
	added := 0
	for line := range strings.Lines(seeds) {
		target, program, _ := strings.Cut(strings.TrimSpace(line), " ")
		if target != f.Name() {
			continue
		}
		_, quoted, _ := strings.Cut(program, " ")
		bytes, err := strconv.Unquote(quoted)
		require.NoError(f, err, line)
		f.Add([]byte(bytes))
		added++
	}
	require.NotZero(f, added, "no seeds for this target")
}
