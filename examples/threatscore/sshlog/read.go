package sshlog

import (
	"bufio"
	"errors"
	"io"
)

// maxLine is the length in bytes from which on a line is skipped unread. Syslog's own limit is 8 KiB.
const maxLine = 64 << 10

// Log is what was found in one or more logs. The zero Log is empty and ready for Read.
type Log struct {
	Events []Event // in the order of the lines

	Lines    int // all lines, whatever they hold
	Unnamed  int // lines with an event whose source is given by name or not at all
	Overlong int // lines of 64 KiB and more, which are skipped
}

// Others returns how many lines hold no event.
func (l *Log) Others() int { return l.Lines - len(l.Events) - l.Unnamed - l.Overlong }

// Read adds the lines of src up to its end. No line stops it, whatever bytes it is made of: what
// is not an event is counted. A source given by name (as rhost= may give it) is counted as
// unnamed, not looked up: who owns the address also chooses that name.
//
// It returns the error of src, if one ended it early; the lines before that are kept.
func (l *Log) Read(src io.Reader) error {
	lines := bufio.NewReaderSize(src, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.Lines++
			l.Overlong++
			err = skipLine(lines)
		case len(line) > 0:
			l.add(string(line))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l *Log) add(line string) {
	l.Lines++
	event, verdict := parse(line)
	switch verdict {
	case isEvent:
		l.Events = append(l.Events, event)
	case isUnnamed:
		l.Unnamed++
	}
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
