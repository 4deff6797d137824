// Package sshlog finds authentication events in the logs of OpenSSH's server.
package sshlog

import (
	"encoding/json"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// split takes a line apart into the program that wrote it and what it wrote. The verdict is
// isMessage if that succeeds. These forms are known:
//
//	Mar  1 04:00:07 HOST sshd[811]: …           syslog; also with one space before the day, with
//	                                            fractions (syslog-ng), and with BusyBox's
//	                                            facility.level before the program
//	Mar  1 04:00:07 sshd[811]: …                the same without a host
//	2026-03-01T04:00:07+01:00 HOST sshd[811]: … RFC 3339, also with +0100 as journalctl wrote it
//	                                            until systemd 255, and with a space for the T
//	Sun 2026-03-01 04:00:07 CET HOST sshd[811]: …   journalctl -o short-full
//	<38>1 2026-03-01T04:00:07Z HOST sshd 811 - - …  RFC 5424
//	{"MESSAGE":"…","SYSLOG_IDENTIFIER":"sshd",…}    journalctl -o json
//
// A crash can leave NULs before a line.
func split(line string) (program, message string, v verdict) {
	line = strings.TrimRight(strings.TrimLeft(line, "\x00\ufeff"), " \r\n")
	if line == "" {
		return "", "", isBlank
	}
	if line[0] == '{' {
		return splitJSON(line)
	}
	if rest, ok := strings.CutPrefix(line, "<"); ok {
		_, rest, ok = strings.Cut(rest, ">") // the priority
		if !ok {
			return "", "", isUnreadable
		}
		line = rest
	}
	if rest, ok := strings.CutPrefix(line, "1 "); ok {
		return splitRFC5424(rest)
	}
	rest, ok := cutTime(line)
	if !ok {
		return "", "", isUnreadable
	}
	if host, after, ok := strings.Cut(rest, " "); ok && !strings.HasSuffix(host, ":") {
		rest = after // some write no host
	}
	rest = facility.ReplaceAllString(rest, "")
	tag, message, ok := strings.Cut(rest, ":")
	if !ok || tag == "" || strings.Contains(tag, " ") {
		return "", "", isUnreadable
	}
	program, _, _ = strings.Cut(tag, "[")
	program, _, _ = strings.Cut(program, "(")
	return path.Base(program), strings.TrimPrefix(message, " "), isMessage
}

// facility is what BusyBox's syslogd writes before the program.
var facility = regexp.MustCompile(`^(?:auth|authpriv|daemon|user|syslog|kern|local[0-7])\.(?:emerg|alert|crit|err|warn|notice|info|debug) `)

// stamps are the forms of a time stamp, each with the space behind it.
var stamps = []struct {
	form   *regexp.Regexp
	layout string
}{
	{regexp.MustCompile(`^([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d)(?:[.,]\d+)? `), "Jan 2 15:04:05"},
	{regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)? `), "2006-01-02 15:04:05"},
	{regexp.MustCompile(`^[A-Z][a-z]{2} (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:[.,]\d+)? [A-Z+\-\d]{1,6} `), "2006-01-02 15:04:05"},
}

// cutTime returns what follows the time stamp and its space. It is not ok without a time stamp
// that there can be.
func cutTime(line string) (rest string, ok bool) {
	for _, s := range stamps {
		if groups := s.form.FindStringSubmatch(line); groups != nil {
			return line[len(groups[0]):], isTime(s.layout, strings.Join(groups[1:], " "))
		}
	}
	return "", false
}

// isTime reports whether there can be such a time. A minute may have a second 60.
func isTime(layout, text string) bool {
	if minute, leap := strings.CutSuffix(text, ":60"); leap {
		text = minute + ":59"
	}
	_, err := time.Parse(layout, text)
	return err == nil
}

// splitRFC5424 is split for what follows the version: TIME HOST PROGRAM PID ID DATA MESSAGE.
func splitRFC5424(line string) (program, message string, v verdict) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 6 {
		return "", "", isUnreadable
	}
	if _, ok := cutTime(fields[0] + " "); !ok && fields[0] != "-" {
		return "", "", isUnreadable
	}
	message, ok := cutData(fields[5])
	if !ok {
		return "", "", isUnreadable
	}
	return path.Base(fields[2]), strings.TrimPrefix(message, "\ufeff"), isMessage
}

// cutData returns what follows the structured data: "-", or elements in brackets whose values
// are quoted, with a backslash before quotes and brackets inside.
func cutData(text string) (rest string, ok bool) {
	if text == "-" {
		return "", true
	}
	if rest, ok := strings.CutPrefix(text, "- "); ok {
		return rest, true
	}
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted && i+1 == len(text):
			return "", i > 0 && text[0] == '['
		case c == ']' && !quoted && text[i+1] == ' ':
			return text[i+2:], text[0] == '['
		}
	}
	return "", false
}

// splitJSON is split for an entry of the journal. A message that is not UTF-8 is an array of
// its bytes there.
func splitJSON(line string) (program, message string, v verdict) {
	var entry struct {
		Message    json.RawMessage `json:"MESSAGE"`
		Identifier string          `json:"SYSLOG_IDENTIFIER"`
		Command    string          `json:"_COMM"`
	}
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Message == nil {
		return "", "", isUnreadable
	}
	if program = entry.Identifier; program == "" {
		program = entry.Command
	}
	if program == "" {
		return "", "", isUnreadable
	}
	if json.Unmarshal(entry.Message, &message) == nil {
		return program, message, isMessage
	}
	var numbers []uint16 // a []byte would be base64
	if json.Unmarshal(entry.Message, &numbers) != nil {
		return "", "", isUnreadable
	}
	var bytes []byte
	for _, n := range numbers {
		if n > 0xff {
			return "", "", isUnreadable
		}
		bytes = append(bytes, byte(n))
	}
	return program, string(bytes), isMessage
}
