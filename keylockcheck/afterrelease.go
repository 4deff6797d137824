package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

var afterRelease = rule("afterrelease",
	"report calls that come too late: Handoff after Release, Wait after Cancel", runAfterRelease)

func runAfterRelease(p *pass) {
	done := make(map[*types.Var]bool)
	for _, s := range p.sources {
		if s.lock == nil || done[s.lock] || s.fn.graph == nil {
			continue
		}
		done[s.lock] = true
		k := s.kind
		if p.lockers[s.lock] != nil {
			k = aLocker
		}
		p.tooLate(s.lock, s.fn, k)
	}
	// Parameters have owners elsewhere, and can be released only once all the same.
	for _, fn := range p.functions {
		if fn.sig == nil || fn.graph == nil {
			continue
		}
		for i := range fn.sig.Params().Len() {
			v := fn.sig.Params().At(i)
			if k := kindOf(v.Type()); (k == aLock || k == aReservation) && !done[v] {
				done[v] = true
				p.tooLate(v, fn, k)
			}
		}
	}
}

// tooLate reports the calls on v that are certain to come after the one that ended it.
func (p *pass) tooLate(v *types.Var, fn *function, k kind) {
	type event struct {
		id     *ast.Ident
		method string // "" for an assignment
		call   *ast.CallExpr
		later  bool // deferred, or on another goroutine
	}
	var events []event
	ends := false
	for _, id := range p.mentions[v] {
		if _, captured := p.captured(id, fn); captured {
			// A literal may be called at any time, and only asks for trouble if it assigns.
			if p.useOf(id) == overwrite {
				return
			}
			continue
		}
		if u := p.useOf(id); u == address {
			return
		} else if u == overwrite {
			events = append(events, event{id: id})
			continue
		}
		call := p.receivedBy(id)
		if call == nil {
			continue
		}
		e := event{id: id, method: methodName(call), call: call}
		switch p.parent(call).(type) {
		case *ast.DeferStmt, *ast.GoStmt:
			e.later = true
		}
		ends = ends || isEnd(k, e.method) && !e.later
		events = append(events, e)
	}
	if !ends {
		return
	}
	last := make(map[int]event) // by state
	f := &flow{fn: fn}
	f.node = func(state int, n ast.Node) int {
		from, to := span(n)
		for i, e := range events {
			if e.id.Pos() < from || e.id.Pos() >= to || e.later {
				continue
			}
			switch {
			case e.method == "", k == aLocker && e.method == "Lock":
				state = 0
			case isEnd(k, e.method):
				if state == 0 {
					state = i + 1
					last[state] = e
				}
			}
		}
		return state
	}
	f.each(func(state int, n ast.Node) {
		if state == 0 {
			return
		}
		from, to := span(n)
		for _, e := range events {
			if e.id.Pos() < from || e.id.Pos() >= to || e.later {
				continue
			}
			if e.method == "" {
				return
			}
			if why := p.late(e.call, v, e.method, last[state].method); why != "" {
				p.at(e.call, fmt.Sprintf("%s comes after %s on line %d: %s",
					p.short(e.call.Fun), p.short(last[state].call.Fun), p.line(last[state].call.Pos()), why),
					analysis.RelatedInformation{Pos: last[state].call.Pos(), End: last[state].call.End(), Message: "it ends here"})
			}
		}
	})
}

// isEnd reports whether after a method the lock or reservation is used up.
func isEnd(k kind, method string) bool {
	switch k {
	case aReservation:
		return method == "Wait" || method == "Cancel"
	case aLocker:
		return method == "Unlock"
	}
	return method == "Release"
}

// late says why a method is wrong after another one, "" when it is not.
func (p *pass) late(call *ast.CallExpr, v *types.Var, method, ended string) string {
	switch {
	case method == "Handoff":
		return "it hands nothing off and returns false"
	case method == "Downgrade":
		return "it keeps nothing, the lock is released"
	case method == "Unlock":
		return "it panics"
	case method == "Wait" && (ended == "Wait" || ended == "Cancel"):
		return "it returns ErrReservationDone"
	case isOf(v.Type(), cohortPath) && method == "Token" && p.isPassed(call):
		return "another holder may have a greater token by now"
	case isOf(v.Type(), cohortPath) && method == "Context" && p.isPassed(call):
		return "the context has ended"
	}
	return ""
}

// isPassed reports whether the result of a call is an argument for a function that works
// with it, and does not only print it or ask it.
func (p *pass) isPassed(call *ast.CallExpr) bool {
	outer, ok := p.parent(call).(*ast.CallExpr)
	if !ok || argument(outer, call) < 0 {
		return false
	}
	fn := callee(p.TypesInfo, outer)
	if fn == nil || fn.Pkg() == nil {
		return false
	}
	switch fn.Pkg().Path() {
	case "fmt", "log", "log/slog", "testing", "context":
		return false
	}
	return true
}

// isOf reports whether a type is declared in the package of that path.
func isOf(t types.Type, path string) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && known(named.Obj().Pkg()) == path
}
