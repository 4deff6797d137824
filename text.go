package keylock

import (
	"fmt"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

// The handles have texts of their own, because package fmt would print their fields, and
// read what other goroutines write.

// String returns the type of the keys, and whether the manager has ended.
func (m *Manager[K]) String() string {
	if m == nil || m.mailbox == nil {
		return "no manager"
	}
	state := "running"
	if m.ended.Load() {
		state = "ended"
	}
	return fmt.Sprintf("manager of keys of type %s, %s", show.Type[K](), state)
}

// String names the session by its label.
func (s *Session[K]) String() string {
	if s == nil || s.state.entries == nil {
		return "no session"
	}
	return sessionText(s.state.entries.Label())
}

// String returns the key, or the first and how many more were named, and the number of the
// grant.
func (l Lock[K]) String() string {
	if l.m == nil {
		return "no lock"
	}
	switch n, many := l.value.(manyKeys); {
	case many && n == 0:
		return fmt.Sprintf("lock of no key, grant %d", l.Seq())
	case n > 1:
		return fmt.Sprintf("lock of key %s and %d more, grant %d", show.Quoted(&l.key), n-1, l.Seq())
	}
	return fmt.Sprintf("lock of key %s, grant %d", show.Quoted(&l.key), l.Seq())
}

// String says whether the reservation was used.
func (v Reservation[K]) String() string {
	if v.r == nil || v.r.generation.Load() != v.generation {
		return "reservation, used"
	}
	return "reservation, not used yet"
}
