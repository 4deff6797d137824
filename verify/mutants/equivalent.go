package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// readEquivalents reads which mutants do the same as the original, and why: a line that is
// a mutant's name, and the reason on the next ones, after a tab.
func readEquivalents(root string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(root, "verify", "mutants", "equivalent.txt"))
	if err != nil {
		return nil, err
	}
	reasons := make(map[string]string)
	name := ""
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimRight(line, "\n"); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "\t"):
			reasons[name] = strings.TrimSpace(reasons[name] + " " + strings.TrimSpace(line))
		default:
			if _, twice := reasons[line]; twice {
				return nil, fmt.Errorf("equivalent.txt: %s: is there twice", line)
			}
			name = line
			reasons[name] = ""
		}
	}
	return reasons, nil
}

// checkEquivalents returns an error for each that has no reason, or that the code has not
// any more.
func checkEquivalents(reasons map[string]string, mutants []mutant) error {
	there := make(map[string]bool)
	for _, m := range mutants {
		there[m.name()] = true
	}
	var errs []error
	for name, reason := range reasons {
		switch {
		case !there[name]:
			errs = append(errs, fmt.Errorf("equivalent.txt: %s: there is no such mutant", name))
		case reason == "":
			errs = append(errs, fmt.Errorf("equivalent.txt: %s: the reason is missing", name))
		}
	}
	return errors.Join(errs...)
}
