package keylock

import (
	"fmt"
	"path"
	"reflect"
	"runtime"
	"strings"
)

// A Caller is the place in the code that asked for a lock, and the calls that led there,
// innermost first. It is empty unless [WithCallers] is on. It is turned into names and
// lines only when somebody looks.
type Caller struct {
	pcs *[callerDepth]uintptr
}

// callerDepth is how many calls are kept. Up to four of them are this package's own, which
// leaves four for the user: the line, and who called the helper that it is in.
const callerDepth = 8

// capture notes who called into this package.
func (c *Caller) capture() {
	c.pcs = new([callerDepth]uintptr)
	runtime.Callers(3, c.pcs[:]) // without itself, capture and newTracked
}

// Frames returns the calls, innermost first, beginning with the first outside this
// package; nil when there are none.
func (c Caller) Frames() []runtime.Frame {
	if c.pcs == nil {
		return nil
	}
	n := 0
	for n < len(c.pcs) && c.pcs[n] != 0 {
		n++
	}
	var outside []runtime.Frame
	for frames := runtime.CallersFrames(c.pcs[:n]); ; {
		frame, more := frames.Next()
		if len(outside) > 0 || !strings.HasPrefix(frame.Function, ownPrefix) {
			outside = append(outside, frame)
		}
		if !more {
			return outside
		}
	}
}

// ownPrefix begins the name of each function of this package, wherever it is vendored.
var ownPrefix = reflect.TypeFor[Caller]().PkgPath() + "."

// String returns the file with its folder, the line and the function, as in
// "billing/charge.go:42 billing.(*Server).charge"; "" for the empty Caller.
func (c Caller) String() string {
	frames := c.Frames()
	if len(frames) == 0 {
		return ""
	}
	return frameText(frames[0])
}

func frameText(f runtime.Frame) string {
	folder, file := path.Split(f.File)
	return fmt.Sprintf("%s:%d %s", path.Join(path.Base(folder), file), f.Line, path.Base(f.Function))
}
