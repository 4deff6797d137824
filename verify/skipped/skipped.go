// Package skipped names the tests that the mutants and the seeded bugs leave out.
package skipped

// Sources are tests that read the source code instead of running it, as patterns of
// test names joined by "|". A change to the code makes them red whatever it does. Two start
// programs of their own, which takes seconds.
const Sources = "TestLeakProfile|TestAnHourPasses|TestImporting|TestReadme|TestNoMutex|TestTableKnows|TestModuleRequires"

// Slow are tests that take seconds. The mutants run them last.
const Slow = "TestStorm|MemoryOfA?Burst"

// Explorer is the test that explores the protocol, which is a check of its own. It is there
// with the build tag explore.
const Explorer = "TestEveryInterleaving"
