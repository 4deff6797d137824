package sshlog

import (
	"encoding/json"
	"path"
	"regexp"
	"strings"
	"time"
)

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
