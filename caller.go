package keylock

import (
	"fmt"
	"path"
	"reflect"
	"runtime"
	"strings"
)

// A Caller is a call site: the place in the code that asked for a lock, and the calls that
// led there, innermost first. It is empty unless [WithCallers] is on. It holds program
// counters, and looks up names and lines only when its methods are called.
type Caller struct {
	pcs *[callerDepth]uintptr
}

// callerDepth is how many calls are kept. Up to six of them are this module's own, which
// leaves the line, and the caller of the helper that it is in.
const callerDepth = 8

// capture notes who called into this package.
func (c *Caller) capture() {
	c.pcs = new([callerDepth]uintptr)
	runtime.Callers(3, c.pcs[:]) // without itself, capture and newTracked
}

// Frames returns the calls, innermost first, beginning with the first outside this package
// and package cohort. It returns nil when the Caller is empty, and when there is no such
// call, because a go statement called the method itself.
func (c Caller) Frames() []runtime.Frame {
	var frames []runtime.Frame
	for frame := range c.outside {
		frames = append(frames, frame)
	}
	return frames
}

// outside yields the calls outside this module, innermost first.
func (c Caller) outside(yield func(runtime.Frame) bool) {
	if c.pcs == nil {
		return
	}
	n := 0
	for n < len(c.pcs) && c.pcs[n] != 0 {
		n++
	}
	own := true
	for frames, more := runtime.CallersFrames(c.pcs[:n]), n > 0; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		own = own && (strings.HasPrefix(frame.Function, ownPackage+".") || strings.HasPrefix(frame.Function, ownPackage+"/cohort."))
		if !own && frame.Function != "runtime.goexit" && !yield(frame) {
			return
		}
	}
}

// ownPackage is the path of this package, wherever it is vendored.
var ownPackage = reflect.TypeFor[Caller]().PkgPath()

// String returns the file with its folder, the line and the function, as in
// "billing/charge.go:42 billing.(*Server).charge"; "a go statement" when that called the
// method itself; and "" for the empty Caller.
func (c Caller) String() string {
	if c.pcs == nil {
		return ""
	}
	for frame := range c.outside {
		folder, file := path.Split(frame.File)
		return fmt.Sprintf("%s:%d %s", path.Join(path.Base(folder), file), frame.Line, path.Base(frame.Function))
	}
	return "a go statement"
}
