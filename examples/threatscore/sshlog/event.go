// Package sshlog finds authentication events in the logs of OpenSSH's server.
package sshlog

import "net/netip"

// Kind says what an event means.
type Kind int

// The kinds of events, and the words of the log that tell them.
const (
	FailedPassword Kind = iota // "Failed password for", "Failed keyboard-interactive/pam for"
	FailedKey                  // "Failed publickey for", and the other methods without a password
	InvalidUser                // "Invalid user"
	AuthFailure                // PAM's "authentication failure; … rhost=", "error: PAM: Authentication failure for"
	TooMany                    // "error: maximum authentication attempts exceeded for"
	BreakIn                    // "POSSIBLE BREAK-IN ATTEMPT!"

	Kinds // how many kinds there are
)

// Event is something that an address did to a server.
type Event struct {
	// Addr is the source. An IPv4 address mapped into IPv6 is given as IPv4, and the zone of an
	// address is left out, so that a source has one Addr.
	Addr netip.Addr
	Kind Kind
	// Count is how often it happened, at least 1: more where the log counts repetitions in one line.
	Count int64
}
