package sshlog

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine is the length in bytes from which on a line is skipped unread. Syslog's own limit is 8 KiB.
const maxLine = 64 << 10

// Log is what was found in one or more logs. The zero Log is empty and ready for Read.
type Log struct {
	Events []Event // in the order of the lines

	// All lines, and those of them that hold no event, by the reason.
	Lines      int
	Messages   int // of sshd, about something else
	Programs   int // of other programs
	Unnamed    int // an event whose source is given by name or not at all
	Unreadable int // without a time stamp, a host and a program that we can tell apart
	Overlong   int // of 64 KiB and more, which are skipped
	Blank      int

	Unclear string // the first of Unreadable, cut
}

// Read adds the lines of src, which may be compressed by gzip, up to its end. No line stops it,
// whatever bytes it is made of: what is not an event is counted. A source given by name (as
// rhost= may give it) is counted as unnamed, not looked up: who owns the address also chooses
// that name.
//
// It returns the error of src, if one ended it early; the lines before that are kept. It also
// returns an error if src has lines and none of them can be read, or none of them is sshd's: that
// log is not a quiet one, but another one than was meant.
func (l *Log) Read(src io.Reader) error {
	var log Log
	first, err := log.read(src)
	l.add(log)
	if err != nil {
		return err
	}
	lines := log.Lines - log.Blank
	sshd := len(log.Events) + log.Unnamed + log.Messages
	packed := encodingOf(first)
	switch {
	case lines == 0 || sshd > 0:
		return nil
	case packed != "":
		return errors.New(packed)
	case log.Programs > 0:
		return fmt.Errorf("no line of sshd among %d lines; the first is %q", lines, cut(first))
	default:
		return fmt.Errorf("none of %d lines begins with a time, a host and a program as syslog or the journal writes them; the first is %q", lines, cut(first))
	}
}

// encodingOf says what to do with a file whose first line is that of an encoding that is not read.
func encodingOf(first string) string {
	for _, e := range []struct{ magic, what string }{
		{"BZh", "it is compressed by bzip2: unpack it first"},
		{"\xfd7zXZ\x00", "it is compressed by xz: unpack it first"},
		{"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it first"},
		{"\xff\xfe", "it is UTF-16: convert it to UTF-8 first"},
		{"\xfe\xff", "it is UTF-16: convert it to UTF-8 first"},
	} {
		if strings.HasPrefix(first, e.magic) {
			return e.what
		}
	}
	return ""
}

func (l *Log) add(other Log) {
	l.Events = append(l.Events, other.Events...)
	l.Lines += other.Lines
	l.Messages += other.Messages
	l.Programs += other.Programs
	l.Unnamed += other.Unnamed
	l.Unreadable += other.Unreadable
	l.Overlong += other.Overlong
	l.Blank += other.Blank
	if l.Unclear == "" {
		l.Unclear = other.Unclear
	}
}

// cut shortens a line for an error.
func cut(line string) string {
	const most = 80
	if len(line) > most {
		return line[:most] + "…"
	}
	return line
}

// read returns the first line that is not blank.
func (l *Log) read(src io.Reader) (first string, err error) {
	lines := bufio.NewReaderSize(src, maxLine)
	if magic, _ := lines.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(lines)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", fmt.Errorf("gzip: %w", err)
		}
		lines = bufio.NewReaderSize(unzipped, maxLine)
	}
	last := message{verdict: isUnreadable} // there is none yet
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.Lines++
			l.Overlong++
			last = message{verdict: isUnreadable}
			if first == "" {
				first = cut(string(line))
			}
			err = skipLine(lines)
		case len(line) > 0:
			if verdict := l.line(string(line), &last); first == "" && verdict != isBlank {
				first = strings.TrimRight(string(line), "\r\n")
			}
		}
		if errors.Is(err, io.EOF) {
			return first, nil
		}
		if err != nil {
			return first, err
		}
	}
}

// A message is what the last line was that is not blank and does not repeat another one.
type message struct {
	event Event
	verdict
}

func (l *Log) line(line string, last *message) verdict {
	l.Lines++
	times, again := repetitions(line)
	event, verdict := last.event, last.verdict
	switch {
	case !again:
		event, verdict = parse(line)
		if verdict != isBlank {
			*last = message{event, verdict}
		}
	case times*event.Count > maxCount || times == 0:
		event, verdict = Event{}, isUnreadable
	default:
		event.Count *= times
	}
	switch verdict {
	case isEvent:
		l.Events = append(l.Events, event)
	case isMessage:
		l.Messages++
	case isProgram:
		l.Programs++
	case isUnnamed:
		l.Unnamed++
	case isUnreadable:
		l.Unreadable++
		if l.Unclear == "" {
			l.Unclear = cut(strings.TrimRight(line, "\r\n"))
		}
	case isBlank:
		l.Blank++
	}
	return verdict
}

// skipLine moves r behind the end of the line.
func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
