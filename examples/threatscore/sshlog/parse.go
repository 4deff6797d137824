// Package sshlog finds authentication events in the logs of OpenSSH's server.
package sshlog

import (
	"net/netip"
	"regexp"
	"strconv"
)

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

// verdict is what a line turned out to be.
type verdict int

const (
	isEvent      verdict = iota
	isMessage            // of sshd, about something else
	isProgram            // of another program
	isUnnamed            // an event, but its source is not given as an address
	isUnreadable         // it does not begin as a line of a log that we know
	isBlank
)

// form is how a message tells an event of a kind.
type form struct {
	kind    Kind
	message *regexp.Regexp
}

// forms are all messages that tell events, with groups named addr for the source and, where the
// message counts, n. User names and host names are chosen by the attacker, so every form is bound
// to the start of the message and takes the address from where sshd itself writes it: the last
// " from " of a line that ends with it, the first " rhost=", the last bracket.
//
// "Failed none" is no event: every client begins with that method, to learn which others there are.
var forms = []form{
	{FailedPassword, regexp.MustCompile(`^Failed (?:password|keyboard-interactive(?:/\S+)?|unknown) for .* from (?P<addr>\S+)`)},
	{FailedKey, regexp.MustCompile(`^Failed (?:publickey|hostbased|gssapi-with-mic) for .* from (?P<addr>\S+)`)},
	{InvalidUser, regexp.MustCompile(`^(?:Invalid|Illegal) user .* from (?P<addr>\S+)`)},
	{AuthFailure, regexp.MustCompile(`^pam_\w+\(\S+\): authentication failure;.*? rhost=(?P<addr>\S*)`)},
	{AuthFailure, regexp.MustCompile(`^PAM (?P<n>\d+) more authentication failures?;.*? rhost=(?P<addr>\S*)`)},
	{InvalidUser, regexp.MustCompile(`^User .* from (?P<addr>\S+) not allowed because `)},
	{AuthFailure, regexp.MustCompile(`^error: PAM: (?:[Aa]uthentication (?:failure|error)|User not known to the underlying authentication module) for .* from (?P<addr>\S+)`)},
	{TooMany, regexp.MustCompile(`^error: maximum authentication attempts exceeded for .* from (?P<addr>\S+) port \d+`)},
	{TooMany, regexp.MustCompile(`^Disconnecting (?:authenticating|invalid) user .* (?P<addr>\S+) port \d+: Too many authentication failures`)},
	{BreakIn, regexp.MustCompile(`^reverse mapping checking getaddrinfo for .*\[(?P<addr>\S*)\] failed - POSSIBLE BREAK-IN ATTEMPT!`)},
	{BreakIn, regexp.MustCompile(`^Address (?P<addr>\S+) maps to .* - POSSIBLE BREAK-IN ATTEMPT!`)},
}

// repeated is how syslog daemons fold equal messages into one.
var repeated = regexp.MustCompile(`^message repeated (\d+) times: \[ (.*)\]$`)

// lastRepeated is how others do it, behind the time.
var lastRepeated = regexp.MustCompile(`^(?:\S+ )?(?:syslogd: )?last message repeated (\d+) times?\s*$`)

// repetitions reports whether a line says that the one before it was written again, and how often
// it was; 0 when that makes no sense.
func repetitions(line string) (times int64, ok bool) {
	rest, ok := cutTime(line)
	if !ok {
		return 0, false
	}
	groups := lastRepeated.FindStringSubmatch(rest)
	if groups == nil {
		return 0, false
	}
	times, _ = count(groups[1])
	return times, true
}

// solarisID is what Solaris' syslog writes before a message.
var solarisID = regexp.MustCompile(`^\[ID \d+ [a-z0-9]+\.[a-z]+\] `)

// parse reads one line of a log. The event is valid only if the verdict is isEvent.
func parse(line string) (Event, verdict) {
	program, message, verdict := split(line)
	if verdict != isMessage {
		return Event{}, verdict
	}
	switch program {
	case "sshd", "sshd-session", "sshd-auth": // newer servers log as the last two
	default:
		return Event{}, isProgram
	}
	message = solarisID.ReplaceAllString(message, "")
	times := int64(1)
	if fold := repeated.FindStringSubmatch(message); fold != nil {
		var ok bool
		if times, ok = count(fold[1]); !ok {
			return Event{}, isMessage
		}
		message = fold[2]
	}
	for _, f := range forms {
		if groups := f.message.FindStringSubmatch(message); groups != nil {
			return f.event(groups, times)
		}
	}
	return Event{}, isMessage
}

// event returns what the groups of a message of the form f tell, if the line says it so many times.
func (f form) event(groups []string, times int64) (Event, verdict) {
	if i := f.message.SubexpIndex("n"); i >= 0 {
		n, ok := count(groups[i])
		if !ok {
			return Event{}, isMessage
		}
		times *= n
	}
	addr, err := netip.ParseAddr(groups[f.message.SubexpIndex("addr")])
	if err != nil {
		return Event{}, isUnnamed
	}
	return Event{Addr: addr.Unmap().WithZone(""), Kind: f.kind, Count: times}, isEvent
}

// maxCount bounds how often a single line may say that something happened, so that no line can
// overflow a sum.
const maxCount = 1_000_000

// count reads how often something happened. It is not ok if the number makes no sense.
func count(digits string) (n int64, ok bool) {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > maxCount {
		return 0, false
	}
	return n, true
}
