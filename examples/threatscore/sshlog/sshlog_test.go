package sshlog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func event(addr string, kind Kind, count int64) Event {
	return Event{Addr: netip.MustParseAddr(addr), Kind: kind, Count: count}
}

func TestEveryFormOfEventIsRead(t *testing.T) {
	for line, want := range map[string]Event{
		// The two time stamps, and the names of sshd's programs.
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2":                                                             event("203.0.113.7", FailedPassword, 1),
		"Feb 29 23:59:59 bastion sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2":                                                             event("203.0.113.7", FailedPassword, 1),
		"2026-03-01T04:00:07Z gateway sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2":                                                        event("203.0.113.7", FailedPassword, 1),
		"2026-03-01T04:00:07.123456+01:00 gateway sshd-session[811]: Failed password for root from 203.0.113.7 port 4711 ssh2":                                    event("203.0.113.7", FailedPassword, 1),
		"2026-03-01T04:00:07.123456-05:30 gateway sshd-auth[811]: Failed password for root from 203.0.113.7 port 4711 ssh2":                                       event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd: Failed password for root from 203.0.113.7 port 4711 ssh2":                                                                  event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2 \r":                                                          event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for invalid user  0 from 203.0.113.7 port 4711 ssh2":                                                  event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Invalid user admin from 203.0.113.7":                                                                                  event("203.0.113.7", InvalidUser, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Invalid user  from 203.0.113.7 port 4711":                                                                             event("203.0.113.7", InvalidUser, 1),
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 rhost=203.0.113.7":                                 event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: pam_sss(sshd:auth): authentication failure; ruser= rhost=203.0.113.7  user=root":                                      event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: PAM 1 more authentication failure; logname= uid=0 rhost=203.0.113.7  user=root":                                       event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: PAM 5 more authentication failures; logname= uid=0 rhost=203.0.113.7  user=root":                                      event("203.0.113.7", AuthFailure, 5),
		"Mar  1 04:00:07 bastion sshd[811]: reverse mapping checking getaddrinfo for a.example [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!":                 event("203.0.113.7", BreakIn, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Address 203.0.113.7 maps to a.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!":        event("203.0.113.7", BreakIn, 1),
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 5 times: [ Failed password for root from 203.0.113.7 port 4711 ssh2]":                                event("203.0.113.7", FailedPassword, 5),
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 2 times: [ PAM 3 more authentication failures; logname= uid=0 rhost=203.0.113.7 ]":                   event("203.0.113.7", AuthFailure, 6),
		"2026-03-01T04:00:07Z gateway sshd[811]: message repeated 3 times: [ Invalid user admin from 2001:db8::7 port 4711]":                                      event("2001:db8::7", InvalidUser, 3),
		"Mar  1 04:00:07 bastion sshd[811]: reverse mapping checking getaddrinfo for a.example [2001:db8::7] failed - POSSIBLE BREAK-IN ATTEMPT!":                 event("2001:db8::7", BreakIn, 1),
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= uid=0 rhost=2001:0DB8:0::0007  user=root":                       event("2001:db8::7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for root from ::ffff:203.0.113.7 port 4711 ssh2":                                                      event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for root from fe80::7%eth0 port 4711 ssh2":                                                            event("fe80::7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=2001:db8::7  user=root":                event("2001:db8::7", AuthFailure, 5),
		"Mar  1 04:00:07 bastion sshd[811]: reverse mapping checking getaddrinfo for [198.51.100.1] failed - x [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!": event("203.0.113.7", BreakIn, 1),
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 1000000 times: [ Failed password for root from 203.0.113.7 port 4711 ssh2]":                          event("203.0.113.7", FailedPassword, 1_000_000),

		// Other methods than passwords, and what sshd says when it has had enough.
		"Mar  1 04:00:07 bastion sshd[811]: Failed keyboard-interactive/pam for root from 203.0.113.7 port 4711 ssh2":                                     event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed keyboard-interactive for invalid user x from 203.0.113.7 port 4711 ssh2":                               event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed publickey for root from 203.0.113.7 port 4711 ssh2: ED25519 SHA256:7sQ1cPzVf0m2":                       event("203.0.113.7", FailedKey, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: PAM: Authentication failure for root from 203.0.113.7":                                                 event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: PAM: Authentication failure for illegal user x from 203.0.113.7":                                       event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: PAM: User not known to the underlying authentication module for illegal user x from 203.0.113.7":       event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: maximum authentication attempts exceeded for root from 203.0.113.7 port 4711 ssh2 [preauth]":           event("203.0.113.7", TooMany, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: maximum authentication attempts exceeded for invalid user x from 203.0.113.7 port 4711 ssh2 [preauth]": event("203.0.113.7", TooMany, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Failed unknown for invalid user x from 203.0.113.7 port 4711 ssh2":                                            event("203.0.113.7", FailedPassword, 1),
		"Mar  1 04:00:07 bastion sshd[811]: error: PAM: authentication error for root from 203.0.113.7 via 198.51.100.1":                                  event("203.0.113.7", AuthFailure, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Disconnecting invalid user x 203.0.113.7 port 4711: Too many authentication failures [preauth]":               event("203.0.113.7", TooMany, 1),
		"Mar  1 04:00:07 bastion sshd[811]: User root from 203.0.113.7 not allowed because not listed in AllowUsers":                                      event("203.0.113.7", InvalidUser, 1),
		"Mar  1 04:00:07 bastion sshd[811]: Illegal user admin from 203.0.113.7":                                                                          event("203.0.113.7", InvalidUser, 1),
	} {
		got, verdict := parse(line)
		assert.Equal(t, isEvent, verdict, line)
		assert.Equal(t, want, got, line)
	}
}

// What lies before the message differs with whatever wrote the log. A form that is not known
// makes the log look quiet, which is the worst that a reader of logs can do.
func TestLogsOfAllWritersAreRead(t *testing.T) {
	const message = "Failed password for root from 203.0.113.7 port 4711 ssh2"
	for _, line := range []string{
		"Mar 1 04:00:07 bastion sshd[811]: " + message,
		"Mar 01 04:00:07 bastion sshd[811]: " + message,
		"Mar  1 04:00:07.250 bastion sshd[811]: " + message,
		"Mar 01 04:00:07.123456 bastion sshd[811]: " + message,
		"Dec 31 23:59:60 bastion sshd[811]: " + message,
		"Mar  1 04:00:07 bastion auth.info sshd[811]: " + message,
		"Mar  1 04:00:07 bastion authpriv.notice sshd[811]: " + message,
		"Mar  1 04:00:07 bastion /usr/sbin/sshd[811]: " + message,
		"Mar  1 04:00:07 2001:db8::1 sshd[811]: " + message,
		"Mar  1 04:00:07 sshd[811]: " + message,
		"Mar  1 04:00:07 bastion sshd[811]: [ID 800047 auth.info] " + message,
		"Mar  1 04:00:07 bastion sshd(pam_unix)[811]: " + message,
		"\x00\x00\x00\x00Mar  1 04:00:07 bastion sshd[811]: " + message,
		"\ufeffMar  1 04:00:07 bastion sshd[811]: " + message,
		"<38>Mar  1 04:00:07 bastion sshd[811]: " + message,
		"2026-03-01T04:00:07+0100 bastion sshd[811]: " + message,
		"2026-03-01T04:00:07,123456+0100 bastion sshd[811]: " + message,
		"2026-03-01T04:00:07.123456+01:00 bastion sshd[811]: " + message,
		"2016-12-31T23:59:60Z bastion sshd[811]: " + message,
		"2026-03-01 04:00:07 bastion sshd[811]: " + message,
		"Sun 2026-03-01 04:00:07 CET bastion sshd[811]: " + message,
		"Sun 2026-03-01 04:00:07.123456 UTC bastion sshd[811]: " + message,
		"<38>1 2026-03-01T04:00:07.123Z bastion sshd 811 - - " + message,
		"1 2026-03-01T04:00:07Z bastion sshd 811 ID47 - \ufeff" + message,
		`<38>1 2026-03-01T04:00:07Z bastion sshd 811 - [a@1 k="v \] \" ]"][b@1] ` + message,
		"<38>1 - - sshd - - - " + message,
		`{"_PID":"811","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"` + message + `"}`,
		`{"_COMM":"sshd","MESSAGE":"` + message + `"}`,
		`{"SYSLOG_IDENTIFIER":"sshd","MESSAGE":[` + numbers("Failed password for \xff from 203.0.113.7 port 4711 ssh2") + `]}`,
	} {
		got, verdict := parse(line)
		assert.Equal(t, isEvent, verdict, line)
		assert.Equal(t, event("203.0.113.7", FailedPassword, 1), got, line)
	}
}

// numbers is how the journal's JSON gives a text that is not UTF-8.
func numbers(text string) string {
	var all []string
	for i := range len(text) {
		all = append(all, strconv.Itoa(int(text[i])))
	}
	return strings.Join(all, ",")
}

func TestCompressedLogsAreRead(t *testing.T) {
	var zipped bytes.Buffer
	for range 2 { // rotation may append
		w := gzip.NewWriter(&zipped)
		_, err := io.WriteString(w, failed+"\n")
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	var log Log
	require.NoError(t, log.Read(bytes.NewReader(zipped.Bytes())))
	assert.Len(t, log.Events, 2)

	require.Error(t, log.Read(bytes.NewReader(zipped.Bytes()[:zipped.Len()-4])), "the end is missing")
}

// A log of something else is an error, or it would look like a quiet one.
func TestLogOfSomethingElseIsAnError(t *testing.T) {
	for src, want := range map[string]string{
		"GIF89a\x01\nmore\n":                           `none of 2 lines begins with a time, a host and a program as syslog or the journal writes them; the first is "GIF89a\x01"`,
		"\nMar  1 04:00:07 bastion cron[1]: started\n": `no line of sshd among 1 lines; the first is "Mar  1 04:00:07 bastion cron[1]: started"`,
		strings.Repeat("x", 1<<20):                     `none of 1 lines begins with a time, a host and a program as syslog or the journal writes them; the first is "` + strings.Repeat("x", 80) + `…"`,
		"BZh91AY&SY":                                   "it is compressed by bzip2: unpack it first",
		"\xfd7zXZ\x00\x00\n":                           "it is compressed by xz: unpack it first",
		"\x28\xb5\x2f\xfd\n":                           "it is compressed by zstd: unpack it first",
		"\xff\xfeM\x00a\x00r\x00\n\x00":                "it is UTF-16: convert it to UTF-8 first",
	} {
		var log Log
		require.NoError(t, log.Read(strings.NewReader(failed)), "another log does not excuse it")
		assert.EqualError(t, log.Read(strings.NewReader(src)), want)
	}
	for _, src := range []string{"", "\n\n", "Mar  1 04:00:07 bastion sshd[811]: Server listening on :: port 22."} {
		var log Log
		assert.NoError(t, log.Read(strings.NewReader(src)), "quiet")
	}
}

// The syslog daemons of BSD, and old ones of Linux, fold equal messages so.
func TestRepetitionsOfTheLastMessageCount(t *testing.T) {
	repeated := func(n string) string { return "\nMar  1 04:00:09 bastion last message repeated " + n + " times\n" }
	cron := "\nMar  1 04:00:07 bastion cron[1]: started"
	var log Log
	require.NoError(t, log.Read(strings.NewReader(repeated("9")+failed+repeated("5")+repeated("2")+cron+repeated("3")+
		"Mar  1 04:00:07 bastion sshd[811]: Connection closed by 203.0.113.7 [preauth]"+repeated("4")+failed+repeated("1000001")+failed+"\n\n"+repeated("2"))))
	assert.Equal(t, Log{
		Events: []Event{
			event("203.0.113.7", FailedPassword, 1), event("203.0.113.7", FailedPassword, 5), event("203.0.113.7", FailedPassword, 2),
			event("203.0.113.7", FailedPassword, 1), event("203.0.113.7", FailedPassword, 1), event("203.0.113.7", FailedPassword, 2),
		},
		Lines: 17, Programs: 2, Messages: 2, Unreadable: 2, Blank: 5,
		Unclear: "Mar  1 04:00:09 bastion last message repeated 9 times",
	}, log)
}

// A user name is any text, so it may look like the rest of a message. The score must go to the
// address that sshd saw.
func TestUserNamesCannotAccuseOthers(t *testing.T) {
	for message, want := range map[string]Event{
		"Invalid user x from 198.51.100.1 port 22 from 203.0.113.7 port 4711":                                                                                   event("203.0.113.7", InvalidUser, 1),
		"Failed password for invalid user x from 198.51.100.1 port 22 ssh2 from 203.0.113.7 port 4711 ssh2":                                                     event("203.0.113.7", FailedPassword, 1),
		"Failed password for invalid user authentication failure; rhost=198.51.100.1 from 203.0.113.7 port 4711 ssh2":                                           event("203.0.113.7", FailedPassword, 1),
		"Invalid user [198.51.100.1] failed - POSSIBLE BREAK-IN ATTEMPT! from 203.0.113.7 port 4711":                                                            event("203.0.113.7", InvalidUser, 1),
		"Disconnecting invalid user x 198.51.100.1 port 22: Too many authentication failures 203.0.113.7 port 4711: Too many authentication failures [preauth]": event("203.0.113.7", TooMany, 1),
		"User x from 198.51.100.1 not allowed because x from 203.0.113.7 not allowed because not listed in AllowUsers":                                          event("203.0.113.7", InvalidUser, 1),
		"error: maximum authentication attempts exceeded for x from 198.51.100.1 port 22 ssh2 from 203.0.113.7 port 4711 ssh2 [preauth]":                        event("203.0.113.7", TooMany, 1),
		"error: PAM: Authentication failure for x from 198.51.100.1 from 203.0.113.7":                                                                           event("203.0.113.7", AuthFailure, 1),
		"pam_unix(sshd:auth): authentication failure; logname= ruser= rhost=203.0.113.7  user=x rhost=198.51.100.1":                                             event("203.0.113.7", AuthFailure, 1),
		"message repeated 2 times: [ Invalid user message repeated 9 times: [ x] from 203.0.113.7 port 4711]":                                                   event("203.0.113.7", InvalidUser, 2),
	} {
		got, verdict := parse("Mar  1 04:00:07 bastion sshd[811]: " + message)
		assert.Equal(t, isEvent, verdict, message)
		assert.Equal(t, want, got, message)
	}
	for _, message := range []string{
		"input_userauth_request: invalid user authentication failure; rhost=198.51.100.1 [preauth]",
		"input_userauth_request: invalid user x from 198.51.100.1 [preauth]",
		"Disconnecting: Too many authentication failures for Invalid user x from 198.51.100.1 [preauth]",
	} {
		_, verdict := parse("Mar  1 04:00:07 bastion sshd[811]: " + message)
		assert.Equal(t, isMessage, verdict, message)
	}
}

func TestWhatIsNoEventIsCountedAsSuch(t *testing.T) {
	for line, want := range map[string]verdict{
		"":                                    isBlank,
		" ":                                   isBlank,
		"\x00\x00":                            isBlank,
		"Mar  1 04:00:07":                     isUnreadable,
		"Mar  1 04:00:07 ":                    isUnreadable,
		"Mar  1 04:00:07 bastion":             isUnreadable,
		"Mar  1 04:00:07 bastion sshd[811]: ": isMessage,
		"Mar 41 04:00:07 bastion sshd[811]: Invalid user x from 203.0.113.7":                                                 isUnreadable,
		"Mar  1 04:00:61 bastion sshd[811]: Invalid user x from 203.0.113.7":                                                 isUnreadable,
		"sshd[811]: Invalid user x from 203.0.113.7":                                                                         isUnreadable,
		"the first of March, bastion sshd[811]: Invalid user x from 203.0.113.7":                                             isUnreadable,
		"<38>1 yesterday bastion sshd 811 - - Invalid user x from 203.0.113.7":                                               isUnreadable,
		"<38>1 2026-03-01T04:00:07Z bastion sshd 811 -":                                                                      isUnreadable,
		`{"MESSAGE":"Invalid user x from 203.0.113.7"}`:                                                                      isUnreadable,
		`{"SYSLOG_IDENTIFIER":"sshd"`:                                                                                        isUnreadable,
		`{"MESSAGE":[73,300],"SYSLOG_IDENTIFIER":"sshd"}`:                                                                    isUnreadable,
		"Mar  1 04:00:07 bastion ftpd[811]: Invalid user x from 203.0.113.7":                                                 isProgram,
		`{"MESSAGE":"Invalid user x from 203.0.113.7","SYSLOG_IDENTIFIER":"ftpd"}`:                                           isProgram,
		"Mar  1 04:00:07 bastion sshd[811]: Failed none for invalid user guest from 203.0.113.7 port 4711 ssh2":              isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: Accepted password for root from 203.0.113.7 port 4711 ssh2":                      isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: Connection closed by 203.0.113.7 [preauth]":                                      isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): check pass; user unknown":                                   isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 0 times: [ Invalid user x from 203.0.113.7]":                    isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 1000001 times: [ Invalid user x from 203.0.113.7]":              isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 99999999999999999999 times: [ Invalid user x from 203.0.113.7]": isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: message repeated 5 times: [ Connection closed by 203.0.113.7 [preauth]]":         isMessage,
		"Mar  1 04:00:07 bastion sshd[811]: PAM 0 more authentication failures; rhost= rhost=203.0.113.7":                    isMessage,

		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= rhost=a.example":                        isUnnamed,
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= rhost=203.0.113.7.a.example  user=root": isUnnamed,
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= rhost=":                                 isUnnamed,
		"Mar  1 04:00:07 bastion sshd[811]: Failed password for root from UNKNOWN port 65535 ssh2":                                        isUnnamed,
		"Mar  1 04:00:07 bastion sshd[811]: Invalid user x from 203.0.113.777":                                                            isUnnamed,
	} {
		got, verdict := parse(line)
		assert.Equal(t, want, verdict, line)
		assert.Zero(t, got, line)
	}
}

const failed = "Mar  1 04:00:07 bastion sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2"

func TestGarbageBetweenEventsIsPassedOver(t *testing.T) {
	src := strings.Join([]string{
		failed,
		"",
		"\x00\xff\xfe\x1b[2J binary \x80",
		strings.Repeat("x", 3<<20),            // one line of three megabytes
		failed + strings.Repeat(" ", maxLine), // an event, but too long
		"Mar  1 04:00:07 bastion sshd[811]: Invalid user \xff\xfe\x00 from 2001:db8::7 port 22",
		"Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; rhost=a.example",
		failed, // without an end of line
	}, "\n")

	var log Log
	require.NoError(t, log.Read(iotest.HalfReader(strings.NewReader(src))))
	assert.Equal(t, Log{
		Events: []Event{
			event("203.0.113.7", FailedPassword, 1),
			event("2001:db8::7", InvalidUser, 1),
			event("203.0.113.7", FailedPassword, 1),
		},
		Lines: 8, Unnamed: 1, Overlong: 2, Unreadable: 1, Blank: 1,
		Unclear: "\x00\xff\xfe\x1b[2J binary \x80",
	}, log)
}

func TestLongestLineIsStillRead(t *testing.T) {
	padded := failed + strings.Repeat(" ", maxLine-len(failed)-1)
	for _, src := range []string{padded + "\n" + failed, padded} {
		var log Log
		require.NoError(t, log.Read(strings.NewReader(src)))
		assert.Len(t, log.Events, log.Lines)
	}

	var log Log
	require.Error(t, log.Read(strings.NewReader(strings.Repeat("x", maxLine)))) // and nothing after it
	assert.Equal(t, Log{Lines: 1, Overlong: 1}, log)
}

func TestLogsAddUp(t *testing.T) {
	var log Log
	for _, src := range []string{"", failed + "\n", failed} {
		require.NoError(t, log.Read(strings.NewReader(src)))
	}
	assert.Equal(t, 2, log.Lines)
	assert.Len(t, log.Events, 2)
}

func TestReadErrorsAreReturned(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, before := range []string{failed + "\n", failed + "\n" + strings.Repeat("x", 2*maxLine)} {
		var log Log
		err := log.Read(io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken)))
		assert.ErrorIs(t, err, broken)
		assert.Len(t, log.Events, 1, "lines before the error are kept")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("\n\n")
	f.Add(failed)
	f.Add("2026-03-01T04:00:07Z h sshd[1]: message repeated 2 times: [ PAM 3 more authentication failures; rhost=::1]")
	f.Add("Mar  1 04:00:07 h sshd[1]: Address ::1%\x1b maps to x - POSSIBLE BREAK-IN ATTEMPT!")
	f.Fuzz(func(t *testing.T, src string) {
		var log Log
		_ = log.Read(strings.NewReader(src)) // the fuzzer rarely finds a line of sshd
		assert.Equal(t, log.Lines, len(log.Events)+log.Messages+log.Programs+log.Unnamed+log.Unreadable+log.Overlong+log.Blank)
		for _, e := range log.Events {
			assert.True(t, e.Addr.IsValid() && e.Addr.Zone() == "" && !e.Addr.Is4In6(), "%v", e)
			assert.Positive(t, e.Count)
			assert.True(t, 0 <= e.Kind && e.Kind < Kinds)
		}
	})
}
