package sshlog

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// verdict is what a line turned out to be.
type verdict int

const (
	isEvent   verdict = iota
	isOther           // no event of a kind that we know
	isUnnamed         // an event, but its source is not given as an address
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
var forms = []form{
	{FailedPassword, regexp.MustCompile(`^Failed password for .* from (?P<addr>\S+)`)},
	{InvalidUser, regexp.MustCompile(`^Invalid user .* from (?P<addr>\S+)`)},
	{AuthFailure, regexp.MustCompile(`^pam_\w+\(\S+\): authentication failure;.*? rhost=(?P<addr>\S*)`)},
	{AuthFailure, regexp.MustCompile(`^PAM (?P<n>\d+) more authentication failures?;.*? rhost=(?P<addr>\S*)`)},
	{BreakIn, regexp.MustCompile(`^reverse mapping checking getaddrinfo for .*\[(?P<addr>\S*)\] failed - POSSIBLE BREAK-IN ATTEMPT!`)},
	{BreakIn, regexp.MustCompile(`^Address (?P<addr>\S+) maps to .* - POSSIBLE BREAK-IN ATTEMPT!`)},
}

// repeated is how syslog daemons fold equal messages into one.
var repeated = regexp.MustCompile(`^message repeated (\d+) times: \[ (.*)\]$`)

// parse reads one line of a log. The event is valid only if the verdict is isEvent.
func parse(line string) (Event, verdict) {
	message, ok := sshdMessage(strings.TrimRight(line, " \r\n"))
	if !ok {
		return Event{}, isOther
	}
	times := int64(1)
	if fold := repeated.FindStringSubmatch(message); fold != nil {
		if times, ok = count(fold[1]); !ok {
			return Event{}, isOther
		}
		message = fold[2]
	}
	for _, f := range forms {
		if groups := f.message.FindStringSubmatch(message); groups != nil {
			return f.event(groups, times)
		}
	}
	return Event{}, isOther
}

// event returns what the groups of a message of the form f tell, if the line says it so many times.
func (f form) event(groups []string, times int64) (Event, verdict) {
	if i := f.message.SubexpIndex("n"); i >= 0 {
		n, ok := count(groups[i])
		if !ok {
			return Event{}, isOther
		}
		times *= n
	}
	addr, err := netip.ParseAddr(groups[f.message.SubexpIndex("addr")])
	if err != nil {
		return Event{}, isUnnamed
	}
	return Event{Addr: addr.Unmap().WithZone(""), Kind: f.kind, Count: times}, isEvent
}

// sshdMessage returns the text after "TIME HOST sshd[PID]: ". TIME is classic ("Jan  2 15:04:05")
// or RFC 3339. Newer servers log as sshd-session and sshd-auth.
func sshdMessage(line string) (string, bool) {
	rest, ok := cutTime(line)
	if !ok {
		return "", false
	}
	_, rest, ok = strings.Cut(rest, " ") // the host
	if !ok {
		return "", false
	}
	tag, message, ok := strings.Cut(rest, ": ")
	if !ok {
		return "", false
	}
	switch program, _, _ := strings.Cut(tag, "["); program {
	case "sshd", "sshd-session", "sshd-auth":
		return message, true
	}
	return "", false
}

// cutTime returns what follows the time stamp and its space.
func cutTime(line string) (string, bool) {
	if n := len(time.Stamp); len(line) > n && line[n] == ' ' {
		if _, err := time.Parse(time.Stamp, line[:n]); err == nil {
			return line[n+1:], true
		}
	}
	stamp, rest, _ := strings.Cut(line, " ")
	_, err := time.Parse(time.RFC3339, stamp)
	return rest, err == nil
}

// maxCount bounds how often a single line may say that something happened, so that no line can
// overflow a sum.
const maxCount = 1_000_000

// count reads how often something happened. It is not ok if the number makes no sense.
func count(digits string) (n int64, ok bool) {
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && 0 < n && n <= maxCount
}
