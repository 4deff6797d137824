// Package skipped says what the mutants and the seeded bugs leave out: which tests, and which of themselves.
package skipped

import (
	"flag"
	"fmt"
)

// A Part is every n-th of many, so that several machines can share them.
type Part struct{ Every, Start int }

// Flags defines the flags that set a part, of what is in the plural.
func (p *Part) Flags(what string) {
	flag.IntVar(&p.Every, "every", 1, "take every n-th of the "+what+" only")
	flag.IntVar(&p.Start, "start", 0, "where to begin with that, less than n")
}

// Check returns an error for what is no part.
func (p Part) Check() error {
	if p.Every < 1 || p.Start < 0 || p.Start >= p.Every {
		return fmt.Errorf("-every=%d -start=%d: want 0 <= start < every", p.Every, p.Start)
	}
	return nil
}

// Has reports whether the i-th of all is in the part.
func (p Part) Has(i int) bool { return i%p.Every == p.Start }

// Sources are tests that read the source code instead of running it, as patterns of
// test names joined by "|". A change to the code makes them red whatever it does. Two start
// programs of their own, which takes seconds.
const Sources = "TestLeakProfile|TestAnHourPasses|TestImporting|TestReadme|TestNoMutex|TestTableKnows|TestModuleRequires"

// Slow are tests that take seconds. The mutants run them last.
const Slow = "TestStorm|MemoryOfA?Burst"

// Explorer is the test that explores the protocol, which is a check of its own. It is there
// with the build tag explore.
const Explorer = "TestEveryInterleaving"
