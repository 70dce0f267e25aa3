// Package archtest holds the house's rules: who may import whom, and how the code is kept.
//
// Under all stages. It has no code but tests. What docs/ARCHITECTURE.md and CONTRIBUTING.md say in prose is here as tables
// and source walks, so that a rule broken is a test failed and not a matter for a reviewer's memory:
//
//   - rules_test.go: the direction of imports, direct and transitive (the table to read first)
//   - source_test.go: sizes, names, package comments, fuzz targets, allowed cryptography
//   - docs_test.go: dependencies and requirements each have their line
//   - links_test.go: every link of the documentation leads somewhere
//
// Every matching function is also tried on a synthetic violation, because a rule that cannot fail holds nothing.
package archtest
